"""A command that torchrun starts again finds the run that it began, and no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from etude.run import RunFolder
from etude.workflow import restarts
from etude.workflow.restarts import forget_run, note_run, run_of_restart


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A run of torchrun's job "night", which it began in its first attempt."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "night")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    made = RunFolder(tmp_path / "notes")
    made.path.mkdir()
    made.settings_file.write_text("")
    note_run(made)
    return made


def test_a_restart_finds_the_run_of_its_job(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert run_of_restart(run.path.parent) == run.path
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "another")
    assert run_of_restart(run.path.parent) is None


def test_a_restart_without_a_count_is_known_by_its_agent(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchrun does not count the restarts after a machine has left."""
    assert run_of_restart(run.path.parent) == run.path
    monkeypatch.setattr(restarts, "_agent", lambda: ["elsewhere", 1])
    assert run_of_restart(run.path.parent) is None  # a new job of the same name begins anew
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert run_of_restart(run.path.parent) is None  # and its restarts do not find the old run


def test_jobs_without_a_name_are_told_apart_by_their_address(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("MASTER_ADDR", "10.0.0.1")
    for port, expected in (("1", run.path), ("2", None)):
        monkeypatch.setenv("MASTER_PORT", port)
        if expected is not None:
            note_run(run)
        assert run_of_restart(run.path.parent) == expected


def test_nothing_is_noted_without_torchrun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    note_run(RunFolder(tmp_path / "notes"))
    forget_run(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert run_of_restart(tmp_path) is None


def test_a_finished_command_leaves_no_note(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    forget_run(run.path.parent)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert run_of_restart(run.path.parent) is None
    assert [path.name for path in run.path.parent.iterdir()] == ["notes"]


@pytest.mark.parametrize("content", ["", "[]", '{"run": "../other"}', '{"run": 3}'])
def test_a_damaged_note_is_none(run: RunFolder, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    (note,) = run.path.parent.glob(".torchrun-*")
    note.write_text(content)
    assert run_of_restart(run.path.parent) is None
