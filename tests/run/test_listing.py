"""The list of runs: one line for each, the most recently changed first, damaged runs included."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from etude.config import to_toml
from etude.files import STAGING_PREFIX, read_object, write_json
from etude.run import RunFolder
from etude.run.events import EvalEvent, LengthEvent, RungEvent, StepEvent
from etude.run.listing import list_runs
from etude.serve.facts import facts_of, run_lines
from resolved import resolved_settings


def write_run(folder: Path, state: str = "running") -> RunFolder:
    """Write a run without a process: settings, a manifest, and an old status and evaluation."""
    run = RunFolder(folder)
    folder.mkdir(parents=True)
    run.settings_file.write_text(to_toml(resolved_settings({"train.steps": 50})))
    write_json(run.manifest_file, {})
    run.write_status(state, 20)
    run.metrics.append(EvalEvent(20, 640, 1.0, 3.0, 2.5, 100).record())
    status = read_object(folder / "status.json")
    write_json(folder / "status.json", status | {"heartbeat": 1.0e9})
    os.utime(run.metrics.path, (1, 1))
    return run


@pytest.mark.parametrize("state", ["running", "finished", "stopped", "failed"])
def test_the_page_and_the_list_show_the_same_state(tmp_path: Path, state: str) -> None:
    """Both show a run whose process was killed as lost."""
    run = write_run(tmp_path / "runs" / "mine", state)
    expected = "lost" if state == "running" else state
    (line,) = list_runs(tmp_path / "runs")
    (shown,) = run_lines(tmp_path / "runs")
    assert line.state == shown["state"] == facts_of(run.path, True)["state"] == expected
    assert {key: getattr(line, key) for key in shown} == shown
    assert (line.step, line.num_steps, line.bits_per_byte) == (20, 50, 2.5)
    with run.locked():  # by a live process
        (line,) = list_runs(tmp_path / "runs")
        assert line.state == ("running" if state == "running" else state)


def test_runs_that_have_not_begun_or_are_damaged_have_their_own_states(tmp_path: Path) -> None:
    new = write_run(tmp_path / "new")
    (new.path / "status.json").unlink()
    old = write_run(tmp_path / "old")
    (old.path / "status.json").unlink()
    os.utime(old.settings_file, (1, 1))
    damaged = write_run(tmp_path / "damaged")
    damaged.manifest_file.unlink()
    staging = tmp_path / f"{STAGING_PREFIX}next-abc"  # a run that is being created
    staging.mkdir()
    (staging / "run.toml").write_text("")
    (tmp_path / "notes.txt").write_text("no run")
    states = {line.name: line.state for line in list_runs(tmp_path)}
    assert states == {"new": "starting", "old": "not begun", "damaged": "damaged"}


def test_a_pipe_instead_of_a_file_does_not_block_the_list(tmp_path: Path) -> None:
    run = write_run(tmp_path / "mine")
    (run.path / "status.json").unlink()
    os.mkfifo(run.path / "status.json")
    assert [line.name for line in list_runs(tmp_path)] == ["mine"]


def test_a_long_record_is_read_from_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handful of sixty thousand lines is parsed, although some of the events are far from the end."""
    run = write_run(tmp_path / "long", "finished")
    place = {"tokens_seen": 0, "wall_time": 0.0}
    run.metrics.append(RungEvent(step=21, **place, order=2, bits_per_byte=3.0).record())
    run.metrics.append(LengthEvent(step=22, **place, num_steps=60_000).record())
    numbers = {"loss": 1.5, "grad_norm": 1.0, "lr": 0.1, "tokens_per_second": 9.0}
    run.metrics.append(*(StepEvent(step=n, **place, **numbers).record() for n in range(23, 30_000)))
    run.metrics.append(EvalEvent(30_000, 0, 0.0, 2.0, 1.25, 100).record())
    run.metrics.append(*(StepEvent(step=n, **place, **numbers).record() for n in range(30_001, 60_001)))
    parsed = 0
    original = json.loads

    def counted(*arguments: Any) -> Any:
        nonlocal parsed
        parsed += 1
        return original(*arguments)

    monkeypatch.setattr(json, "loads", counted)
    (line,) = list_runs(tmp_path)
    assert (line.bits_per_byte, line.passed, line.num_steps) == (1.25, 2, 60_000)
    assert parsed < 10
