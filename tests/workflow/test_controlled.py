"""A real training is paused, stepped, saved and stopped from outside, without any change of its result."""

from __future__ import annotations

import io
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from diagnosed import settings_for, write_text
from etude.run import RunFolder
from etude.run.checkpoints import list_checkpoints, step_of
from etude.train.control import Control, ControlledPause
from etude.workflow import jobs
from etude.workflow.fit import Outcome
from waiting import PATIENCE, wait_until


def losses(run: RunFolder) -> dict[int, float]:
    return {event["step"]: event["loss"] for event in run.metrics.read() if event["event"] == "step"}


def seconds(run: RunFolder) -> dict[int, float]:
    return {event["step"]: event["wall_time"] for event in run.metrics.read() if event["event"] == "step"}


def test_a_training_in_hand_goes_the_same_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path / "cache"))
    write_text(tmp_path / "text", 60_000)
    values: dict[str, Any] = {"train.steps": 400, "train.log_every": 1, "train.checkpoint_every": 1000}
    free = jobs.grow(settings_for(tmp_path, "free", **values), Console(file=io.StringIO()))
    held = RunFolder(tmp_path / "runs" / "held")
    control, outcome = Control(held.path), list[Outcome]()
    before_steps: list[float] = []  # times at which the loop checked for a pause, once per step
    waits: list[tuple[float, float]] = []
    due, wait = ControlledPause.due, ControlledPause.wait

    def due_and_pause(self: ControlledPause) -> bool:
        before_steps.append(time.monotonic())
        if len(before_steps) in (
            5,
            25,
        ):  # triggered by steps, so that a late thread of this test does not matter
            control.request("pause" if len(before_steps) == 5 else "stop")
        return due(self)

    def timed_wait(self: ControlledPause, step: int) -> None:
        begin = time.monotonic()
        wait(self, step)
        waits.append((begin, time.monotonic()))

    monkeypatch.setattr(ControlledPause, "due", due_and_pause)
    monkeypatch.setattr(ControlledPause, "wait", timed_wait)

    def train() -> None:
        settings = settings_for(tmp_path, "held", **values)
        outcome.append(jobs.grow(settings, Console(file=io.StringIO())))

    training = threading.Thread(target=train)
    training.start()
    wait_until(lambda: len(losses(held)) == 4)
    wait_until(lambda: held.status().get("state") == "running")
    time.sleep(0.5)
    before = max(losses(held))
    assert before == 4
    control.request("one_step")
    wait_until(lambda: max(losses(held)) == before + 1)
    time.sleep(0.3)
    assert max(losses(held)) == before + 1
    control.request("save")
    control.request("go_on")
    training.join(PATIENCE)
    assert not training.is_alive()
    assert outcome[0].reason == "stopped"
    saved = [step_of(folder) for folder in list_checkpoints(held.checkpoints)]
    assert before + 2 in saved
    assert outcome[0].step in saved
    whole = losses(free.run)
    assert losses(held) == {step: whole[step] for step in range(1, outcome[0].step + 1)}
    # The time of the single step between two waits does not include the first wait.
    (first_begin, first_end), (second_begin, _) = waits
    passed = second_begin - before_steps[before - 1]
    assert seconds(held)[before + 1] - seconds(held)[before] <= passed - (first_end - first_begin)
    jobs.resume(held.path, Console(file=io.StringIO()))
    assert losses(held) == whole


def test_a_folder_named_pause_does_not_hold_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path / "cache"))
    write_text(tmp_path / "text", 30_000)
    values: dict[str, Any] = {"train.steps": 2, "train.eval_every": 100, "train.eval_tokens": 500}
    run = jobs.grow(settings_for(tmp_path, "mine", **values), Console(file=io.StringIO())).run
    (run.path / "control" / "pause").mkdir(parents=True)
    (run.path / "control" / "pause" / "why.txt").write_text("to think")
    printed = io.StringIO()
    assert jobs.resume(run.path, Console(file=printed, width=300), ["train.steps=4"]).reason == "finished"
    assert f"{run.path}/control/pause cannot be removed" in printed.getvalue()
    assert (run.path / "control" / "pause" / "why.txt").exists()
