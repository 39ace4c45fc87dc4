"""A real training is held, stepped, saved and stopped from outside, and is the same training."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from diagnosed import settings_for, write_text
from etude.run import RunFolder
from etude.train.checkpoint import list_checkpoints, step_of
from etude.train.control import Control
from etude.workflow import jobs
from etude.workflow.pretrain import Outcome


def wait_until(ready: Callable[[], bool], seconds: float = 60.0) -> None:
    begun = time.monotonic()
    while not ready():
        assert time.monotonic() - begun < seconds, "it took too long"
        time.sleep(0.01)


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

    def train() -> None:
        settings = settings_for(tmp_path, "held", **values)
        outcome.append(jobs.grow(settings, Console(file=io.StringIO())))

    training = threading.Thread(target=train)
    training.start()
    wait_until(lambda: len(losses(held)) > 3)
    control.ask("pause")
    wait_until(lambda: held.status().get("state") == "running")
    time.sleep(0.3)
    before = max(losses(held))
    time.sleep(0.5)
    assert max(losses(held)) == before < 400
    control.ask("one_step")
    wait_until(lambda: max(losses(held)) == before + 1)
    time.sleep(0.3)
    assert max(losses(held)) == before + 1
    control.ask("save")
    control.ask("go_on")
    wait_until(lambda: "save" not in control.asked() and max(losses(held)) > before + 3)
    control.ask("stop")
    training.join(60)
    assert not training.is_alive()
    assert outcome[0].reason == "stopped"
    saved = [step_of(folder) for folder in list_checkpoints(held.checkpoints)]
    assert before + 2 in saved
    assert outcome[0].step in saved
    whole = losses(free.run)
    assert losses(held) == {step: whole[step] for step in range(1, outcome[0].step + 1)}
    # What it was kept waiting, more than a second, is not time of training.
    assert seconds(held)[outcome[0].step] < seconds(free.run)[outcome[0].step] + 0.6
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
