"""The folders of accounts without a home, with a home that is not writable, and on machines with other users."""

from __future__ import annotations

import getpass
import os
from pathlib import Path
from typing import NoReturn

import pytest

from etude import places
from etude.errors import EtudeError, InputError


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Simulate an account without a name and a home, and return the temporary folder of its machine."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(places.tempfile, "gettempdir", lambda: str(folder))
    for name in ("ETUDE_CACHE", "HOME", "MPLCONFIGDIR", "LOGNAME", "USER", "LNAME", "USERNAME", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(name, "")  # so that monkeypatch restores the variable even if the code sets it
        monkeypatch.delenv(name)
    import pwd

    def unknown(*_: object) -> NoReturn:
        raise KeyError("uid not found")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    places._report_fallback.cache_clear()
    return folder


def own(folder: Path) -> Path:
    return folder / f"etude-{os.getuid()}"


def test_an_account_without_a_home_gets_a_private_folder(
    temporary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = places.cache_folder()
    assert folder == own(temporary) / ".cache" / "etude"
    assert own(temporary).stat().st_mode & 0o777 == 0o700
    assert places.cache_folder() == folder
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert f"prepared text is kept in {folder} (ETUDE_CACHE=FOLDER chooses another)" in message


def test_libraries_get_a_home_and_a_user_name(temporary: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places.ensure_user_and_home()
    assert Path.home() == own(temporary)
    assert getpass.getuser() == f"uid-{os.getuid()}"
    assert capsys.readouterr().err == "", "only prepared text is worth a line"
    assert places.cache_folder() == own(temporary) / ".cache" / "etude"
    assert "prepared text is kept in" in capsys.readouterr().err


def test_a_home_that_is_not_writable_is_not_used(
    temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.write_text("")  # a file: not even root can create a folder in it
    monkeypatch.setenv("HOME", str(home))
    assert places.cache_folder() == own(temporary) / ".cache" / "etude"
    places.ensure_user_and_home()
    assert os.environ["HOME"] == str(home), "files in it are still readable"
    assert Path(os.environ["MPLCONFIGDIR"]).is_relative_to(own(temporary))


def test_an_ordinary_account_is_unchanged(
    temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USER", "ada")
    places.ensure_user_and_home()
    assert places.cache_folder() == tmp_path / "home" / ".cache" / "etude"
    assert not own(temporary).exists()
    assert "MPLCONFIGDIR" not in os.environ


@pytest.mark.parametrize("kind", ["open to others", "a link", "a file"])
def test_a_folder_that_another_account_may_have_made_is_refused(
    temporary: Path, tmp_path: Path, kind: str
) -> None:
    path = own(temporary)
    if kind == "a link":
        path.symlink_to(tmp_path)
    elif kind == "a file":
        path.write_text("")
    else:
        path.mkdir()
        path.chmod(0o777)
    with pytest.raises(EtudeError, match="set ETUDE_CACHE and HOME to folders"):
        places.cache_folder()


def test_the_folder_in_the_variable_is_used_or_refused(
    temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path / "mine"))
    assert places.cache_folder() == tmp_path / "mine"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(InputError, match=r"ETUDE_CACHE=.* cannot be written"):
        places.cache_folder()
    monkeypatch.setenv("ETUDE_CACHE", "~/cache")
    with pytest.raises(InputError, match="no home folder for '~/cache': write the whole path"):
        places.cache_folder()


def test_a_tilde_of_an_unknown_account_is_refused_unless_a_file_has_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no home folder for '~no-such-account/text"):
        places.expand_home("~no-such-account/text.txt")
    Path("~no-such-account").write_text("")
    assert places.expand_home("~no-such-account") == Path("~no-such-account")
