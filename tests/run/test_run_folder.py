"""Files and folders are written whole or not at all; logs survive damage; a run folder is created and opened."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.errors import EtudeError, InputError
from etude.files import STAGING_PREFIX, read_json, staged_folder, sweep_staging, write_atomic, write_json
from etude.run import JsonLines, RunFolder, free_name
from waiting import PATIENCE


@contextmanager
def files_no_larger_than(num_bytes: int) -> Iterator[None]:
    """Make the system refuse writes beyond the limit, as on a full disk."""
    old_limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    old_handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, old_limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old_limits)
        signal.signal(signal.SIGXFSZ, old_handler)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "status.json"
    write_atomic(file, "old")
    with files_no_larger_than(1000), pytest.raises(EtudeError, match="free some space"):
        write_atomic(file, "x" * 5000)
    assert file.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["status.json"]


def test_a_failed_write_of_a_folder_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    final = tmp_path / "step-1"
    with staged_folder(final) as folder:
        (folder / "a").write_text("good")
    with files_no_larger_than(1000), pytest.raises(EtudeError), staged_folder(final) as folder:
        (folder / "a").write_bytes(b"x" * 5000)

    def interrupted() -> None:
        with staged_folder(final) as folder:
            (folder / "a").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (final / "a").read_text() == "good"
    assert [p.name for p in tmp_path.iterdir()] == ["step-1"]


def test_a_folder_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    final = tmp_path / "new"
    with staged_folder(final) as folder:
        (folder / "a").write_text("1")
        assert not final.exists()
        assert folder.name.startswith(STAGING_PREFIX)
    assert (final / "a").read_text() == "1"


def test_a_sweep_removes_only_the_folders_of_killed_processes(tmp_path: Path) -> None:
    for name in ("mine", ".staging"):
        (tmp_path / name).mkdir()
    (tmp_path / f"{STAGING_PREFIX}file").write_text("a file that is being written")
    dying = (
        "import os, pathlib, signal, sys; from etude.files import staged_folder\n"
        "with staged_folder(pathlib.Path(sys.argv[1])) as folder:\n"
        "    (folder / 'a').write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", dying, str(tmp_path / "new")], timeout=PATIENCE)
    assert ended.returncode == -signal.SIGKILL
    left = set(tmp_path.glob(f"{STAGING_PREFIX}new-*"))
    assert len(left) == 1
    with staged_folder(tmp_path / "new") as alive:
        (alive / "a").write_text("whole")
        sweep_staging(tmp_path)
        assert set(tmp_path.glob(f"{STAGING_PREFIX}new-*")) == {alive}
    assert sorted(path.name for path in tmp_path.iterdir()) == [".staging", ".staging-file", "mine", "new"]
    assert (tmp_path / "new" / "a").read_text() == "whole"


@pytest.mark.parametrize("moment", ["tempfile.mkdtemp", "os.open"])
def test_a_folder_that_is_swept_before_it_is_locked_is_created_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    original = {"tempfile.mkdtemp": tempfile.mkdtemp, "os.open": os.open}[moment]
    swept = []

    def then_sweep(*arguments: Any, **options: Any) -> Any:
        result = original(*arguments, **options)
        if not swept:
            swept.extend(tmp_path.glob(f"{STAGING_PREFIX}*"))
            sweep_staging(tmp_path)
        return result

    monkeypatch.setattr(f"etude.files.{moment}", then_sweep)
    with staged_folder(tmp_path / "new") as folder:
        assert len(swept) == 1
        assert folder not in swept
        (folder / "a").write_text("whole")
    assert (tmp_path / "new" / "a").read_text() == "whole"
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_the_error_about_damaged_json_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "manifest.json"
    write_json(file, {"a": 1})
    assert read_json(file) == {"a": 1}
    file.write_bytes(file.read_bytes()[:4])
    with pytest.raises(InputError, match=r"manifest\.json is damaged"):
        read_json(file)
    with pytest.raises(InputError, match="missing"):
        read_json(tmp_path / "absent.json")


@given(cut=st.integers(0, 200), steps=st.integers(0, 5))
def test_a_truncated_log_keeps_every_whole_line(
    tmp_path_factory: pytest.TempPathFactory, cut: int, steps: int
) -> None:
    log = JsonLines(tmp_path_factory.mktemp("log") / "metrics.jsonl")
    events = [{"step": step, "text": "ü\n" * step} for step in range(steps)]
    log.append(*events)
    content = log.path.read_bytes()
    log.path.write_bytes(content[:cut])
    whole = content[:cut].count(b"\n")
    at_a_line_end = [json.loads(line) for line in content[:cut].split(b"\n")[:whole]]
    assert log.read()[:whole] == at_a_line_end == events[:whole]
    assert len(log.read()) <= whole + 1


def test_dropping_later_steps_drops_the_end_as_well(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "metrics.jsonl")
    log.append(*({"event": "step", "step": step} for step in range(10)), {"event": "end", "step": 4})
    log.path.open("a").write('{"event": "step", "step": null}\n')
    log.drop_after(4)
    assert [event["step"] for event in log.read()] == [0, 1, 2, 3, 4]


def test_dropping_later_steps_keeps_the_bytes_of_the_other_lines(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "metrics.jsonl")
    kept = b'{"step":1, "loss": 1.50,"text":"\\u00fc"}\n{"step": 2, "loss": 1e-07}\n'
    log.path.write_bytes(kept[:10] + b"\n" + kept + b'{"step": 3}\n{"step": 2, "text": "the last, unended"}')
    log.drop_after(2)
    assert log.path.read_bytes() == kept + b'{"step": 2, "text": "the last, unended"}\n'


@pytest.mark.parametrize("name", ["", "a/b", "..", ".", "/tmp/x"])
def test_a_run_name_is_a_plain_folder_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError):
        RunFolder.new(tmp_path, name)


def test_a_run_is_created_once_and_can_be_opened(tmp_path: Path) -> None:
    run = RunFolder.new(tmp_path, "a")
    run.path.mkdir()
    with pytest.raises(InputError, match="already exists"):
        RunFolder.new(tmp_path, "a")
    assert free_name(tmp_path, "a") == "a-2"
    assert free_name(tmp_path, "b") == "b"
    with pytest.raises(InputError, match="not a run folder"):
        RunFolder.open(tmp_path / "a")
    run.settings_file.write_text("")
    assert RunFolder.open(tmp_path / "a") == run
    with pytest.raises(InputError, match="runs there: a"):
        RunFolder.open(tmp_path / "b")


def test_a_damaged_status_is_empty(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.write_status("running", 3)
    assert run.status()["step"] == 3
    (run.path / "status.json").write_text("{")
    assert run.status() == {}


def test_new_files_follow_the_umask_without_setting_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All threads share one umask: reading it by setting it would give files of other threads wrong permissions."""
    before = os.umask(0o027)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "umask", lambda mask: pytest.fail("set while other threads may write"))
            write_atomic(tmp_path / "file", "content")
            with staged_folder(tmp_path / "folder"):
                pass
    finally:
        os.umask(before)
    if Path("/proc/self/status").exists():
        assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
        assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o750
