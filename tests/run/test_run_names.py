"""The same rule applies to names of new runs from --name, --fork and the page."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from etude.cli.main import app
from etude.errors import InputError
from etude.run import RunFolder, free_name

BAD = [
    "",
    "-rf",
    "--help",
    ".hidden",
    "..",
    ".",
    "~root",
    "a/b",
    "../x",
    "a\\b",
    "C:run",
    "two\nlines",
    "two\u2028lines",
    "\x1b[31mred",
    "\u202egnp.exe",
    "zero\u200bwidth",
    " space",
    "space ",
    "dot.",
    "star*",
    "a?b",
    "pipe|x",
    '"quoted"',
    "\ud800",
    "nul\0",
    "x" * 201,
    "é" * 101,
]
GOOD = ["a", "my-run", "my_run.2", "run 7", "märchen", "物語", "7", "x" * 200, "é" * 100, "a-"]


@pytest.mark.parametrize("name", BAD)
def test_a_harmful_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot name a run") as refused:
        RunFolder.new(tmp_path, name)
    assert str(refused.value).isprintable()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", GOOD)
def test_a_plain_name_is_accepted(name: str, tmp_path: Path) -> None:
    RunFolder.new(tmp_path, name).path.mkdir()
    other = RunFolder.new(tmp_path, free_name(tmp_path, name))  # a numbered name is valid too
    assert not other.path.exists()


@pytest.mark.parametrize("name", ["-rf", ".hidden", "two\nlines", "\x1b[31mred"])
def test_the_command_line_refuses_a_harmful_name_before_any_work(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("Once upon a time. " * 500)
    result = CliRunner().invoke(app, ["train", "text.txt", "--no-studio", f"--name={name}"])
    assert result.exit_code != 0
    assert "cannot name a run" in str(result.exception) + result.output
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]
