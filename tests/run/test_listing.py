"""The list of runs: what each is, the last changed first, damage named and not hidden."""

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
    """A run without a process: settings, a manifest, a status and an evaluation, as of long ago."""
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
def test_the_page_and_the_list_say_the_same_of_a_run(tmp_path: Path, state: str) -> None:
    """A run whose process was killed is lost in both."""
    run = write_run(tmp_path / "runs" / "mine", state)
    expected = "lost" if state == "running" else state
    (line,) = list_runs(tmp_path / "runs")
    (shown,) = run_lines(tmp_path / "runs")
    assert line.state == shown["state"] == facts_of(run.path, True)["state"] == expected
    assert {key: getattr(line, key) for key in shown} == shown
    assert (line.step, line.num_steps, line.bits_per_byte) == (20, 50, 2.5)
    with run.locked():  # by a process that lives
        (line,) = list_runs(tmp_path / "runs")
        assert line.state == ("running" if state == "running" else state)


def test_what_is_not_begun_or_half_made_has_its_own_line(tmp_path: Path) -> None:
    new = write_run(tmp_path / "new")
    (new.path / "status.json").unlink()
    old = write_run(tmp_path / "old")
    (old.path / "status.json").unlink()
    os.utime(old.settings_file, (1, 1))
    damaged = write_run(tmp_path / "damaged")
    damaged.manifest_file.unlink()
    staging = tmp_path / f"{STAGING_PREFIX}next-abc"  # is being made, and no run yet
    staging.mkdir()
    (staging / "run.toml").write_text("")
    (tmp_path / "notes.txt").write_text("no run")
    states = {line.name: line.state for line in list_runs(tmp_path)}
    assert states == {"new": "starting", "old": "not begun", "damaged": "damaged"}


def test_a_pipe_in_place_of_a_file_holds_no_list_up(tmp_path: Path) -> None:
    run = write_run(tmp_path / "mine")
    (run.path / "status.json").unlink()
    os.mkfifo(run.path / "status.json")
    assert [line.name for line in list_runs(tmp_path)] == ["mine"]


def test_a_long_record_is_read_from_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of sixty thousand lines a handful is parsed, though what is wanted stands far from the end too."""
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
