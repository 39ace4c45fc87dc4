"""Checkpoints in the background are complete, in order and waited for; their disk space is known in advance."""

from __future__ import annotations

import io
import json
import shutil
import threading
import time
from collections import namedtuple
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from etude.config import Settings, with_values
from etude.errors import EtudeError, InputError
from etude.plan.cadence import save_due
from etude.plan.disk_use import disk_use
from etude.run import RunFolder
from etude.run.checkpoints import (
    is_never_pruned,
    list_checkpoints,
    newest_good_checkpoint,
    step_of,
    verify_checkpoint,
)
from etude.run.file_checks import verify
from etude.train import saving
from etude.train.loop import Loop
from etude.workflow import jobs, start
from etude.workflow.prepare import make_plan
from networks import make_config
from waiting import PATIENCE

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """Make each write take 0.3 s, and return the times at which it began and ended."""
    written: list[tuple[float, float]] = []
    original = saving.save_checkpoint

    def slowly(*arguments: Any) -> None:
        begin = time.monotonic()
        time.sleep(0.3)
        original(*arguments)
        written.append((begin, time.monotonic()))

    monkeypatch.setattr(saving, "save_checkpoint", slowly)
    return written


def test_a_slow_disk_is_waited_for_and_never_overrun(
    small_settings: Settings, console: Console, slow_disk: list[tuple[float, float]]
) -> None:
    run = jobs.grow(small_settings, console).run
    saved = [step_of(folder) for folder in list_checkpoints(run.checkpoints)]
    assert saved[-1] == 12
    assert len(slow_disk) >= len(saved)
    assert all(earlier[1] <= later[0] for earlier, later in pairwise(slow_disk))
    for folder in list_checkpoints(run.checkpoints):
        verify_checkpoint(folder)
    assert run.status()["state"] == "finished"  # written only after the last checkpoint


def test_steps_go_on_while_a_checkpoint_is_written(
    small_settings: Settings, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first write waits until two more steps are logged. It would wait forever if the steps waited for it."""
    original = saving.save_checkpoint
    seen = threading.Event()

    def when_two_steps_are_made(checkpoints: Path, *arguments: Any) -> None:
        metrics = RunFolder(checkpoints.parent).metrics
        deadline = time.monotonic() + PATIENCE
        while arguments[0].step == 0 and not seen.is_set() and time.monotonic() < deadline:
            if [event for event in metrics.read() if event["event"] == "step"]:
                seen.set()
        original(checkpoints, *arguments)

    monkeypatch.setattr(saving, "save_checkpoint", when_two_steps_are_made)
    settings = with_values(small_settings, {"train.log_every": 1})
    assert jobs.grow(settings, console).reason == "finished"
    assert seen.is_set()


@pytest.mark.parametrize("at_step", [0, 4, 12])
def test_a_write_that_fails_ends_the_run_and_the_one_before_it_is_good(
    small_settings: Settings, console: Console, monkeypatch: pytest.MonkeyPatch, at_step: int
) -> None:
    original = saving.save_checkpoint

    def failing(checkpoints: Path, snapshot: Any, *arguments: Any) -> None:
        if snapshot.step == at_step:
            raise EtudeError("could not write it: no space left; free some space")
        original(checkpoints, snapshot, *arguments)

    monkeypatch.setattr(saving, "save_checkpoint", failing)
    with pytest.raises(EtudeError, match="free some space"):
        jobs.grow(small_settings, console)
    run = RunFolder(next(Path(small_settings.run.folder).iterdir()))
    assert run.status()["state"] == "failed"
    assert isinstance(console.file, io.StringIO)
    assert f"saved checkpoints/step-{at_step:08d}" not in console.file.getvalue()
    if at_step > 0:
        assert newest_good_checkpoint(run.checkpoints)[0].step < at_step
    monkeypatch.undo()
    assert jobs.resume(run.path, console).reason == "finished"
    assert "saved checkpoints/step-00000012" in console.file.getvalue()


def test_a_checkpoint_without_room_is_not_begun(
    small_settings: Settings, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "require_disk", lambda plan, folder, begins: None)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(10**9, 10**9 - 1000, 1000))
    with pytest.raises(EtudeError, match=r"has 0.1 MB free: free some space.*--resume"):
        jobs.grow(small_settings, console)


def test_a_run_for_which_there_is_no_room_is_refused_before_it_begins(
    small_settings: Settings, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(10**9, 10**9 - 1000, 1000))
    with pytest.raises(InputError, match=r"train\.keep_checkpoints"):
        jobs.grow(small_settings, console)
    assert not list(Path(small_settings.run.folder).glob("*"))


@pytest.mark.parametrize("keep_every", [0, 10])
def test_the_disk_use_that_is_told_ahead_is_what_it_comes_to(
    small_settings: Settings, console: Console, keep_every: int
) -> None:
    values = {"train.steps": 40, "train.checkpoint_every": 3, "train.keep_every": keep_every}
    settings = with_values(small_settings, values)
    use = disk_use(make_plan(settings, console)[0])
    run = jobs.grow(settings, console).run
    saved = list_checkpoints(run.checkpoints)
    steps = [step_of(folder) for folder in saved]
    assert {0, 1, 2, 4, 8, 16, 32, 40} <= set(steps)
    assert {0, 10, 20, 30, 40} <= set(steps) or not keep_every
    taken = sum(file.stat().st_size for folder in saved for file in folder.iterdir())
    assert len(saved) == use.kept
    assert taken == pytest.approx(use.final, rel=0.05)
    assert use.final <= use.most


def test_the_writer_is_there_before_memory_can_be_short(tmp_path: Path) -> None:
    before = threading.active_count()
    save = saving.Save(RunFolder(tmp_path), make_config("llama"), 1, lambda step: "")
    assert threading.active_count() == before + 1
    save.finish()


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_a_checkpoint_is_never_ahead_of_the_log_in_any_order_of_listeners(
    small_settings: Settings,
    console: Console,
    monkeypatch: pytest.MonkeyPatch,
    order: tuple[int, ...],
) -> None:
    """The log that a checkpoint covers ends with its own line, and holds all other events of its step."""
    original = Loop.__init__

    def shuffling(loop: Loop, *arguments: Any, **options: Any) -> None:
        listeners = options["listeners"]
        assert len(listeners) == len(order)
        original(loop, *arguments, **options | {"listeners": [listeners[place] for place in order]})

    monkeypatch.setattr(Loop, "__init__", shuffling)
    run = jobs.grow(small_settings, console).run
    content = run.metrics.path.read_bytes()
    folders = list_checkpoints(run.checkpoints)
    assert len(folders) > 5
    for folder in folders:
        checkpoint = verify_checkpoint(folder)
        lines = content[: checkpoint.provenance.logs["metrics.jsonl"].num_bytes].splitlines()
        last = json.loads(lines[-1])
        assert (last["event"], last["step"]) == ("checkpoint", checkpoint.step)
        assert last["tokens_seen"] == checkpoint.tokens_seen
        events = [
            event for event in map(json.loads, content.splitlines()) if event["step"] == checkpoint.step
        ]
        assert [event["event"] for event in events if event["event"] != "end"].count("checkpoint") == 1
        known = [event for event in map(json.loads, lines) if event["step"] == checkpoint.step]
        assert known == [event for event in events if event["event"] != "end"]
    assert all(check.ok for check in verify(run))


@pytest.mark.parametrize(
    "values",
    [
        {"train.steps": 2**48},
        {"train.steps": 2**48, "train.checkpoint_every": 1, "train.keep_checkpoints": 2**40},
        {"train.steps": 2**48, "train.checkpoint_every": 3, "train.keep_every": 1},
    ],
    ids=str,
)
def test_the_space_of_a_run_of_any_length_is_predicted_at_once(
    small_settings: Settings, console: Console, values: dict[str, int]
) -> None:
    plan = make_plan(with_values(small_settings, values), console)[0]
    before = time.process_time()
    use = disk_use(plan)
    assert time.process_time() - before < 10
    assert use.most >= use.final > 0


@pytest.mark.parametrize("every", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("keep_every", [0, 1, 2, 3, 4, 6])
@pytest.mark.parametrize("keep", [1, 3])
def test_the_space_is_that_of_the_saves_and_removals_of_a_run(
    small_settings: Settings, console: Console, every: int, keep_every: int, keep: int
) -> None:
    """Every save of the loop is gone through here; the program goes through those that matter."""
    values = {
        "train.steps": 100,
        "train.checkpoint_every": every,
        "train.keep_every": keep_every,
        "train.keep_checkpoints": keep,
        "train.state_every": 8,
    }
    plan = make_plan(with_values(small_settings, values), console)[0]
    due = save_due(plan.settings.train)
    kept: list[int] = []
    states: set[int] = set()
    for step in range(101):
        if due(step) or step == 100:
            kept.append(step)
            states.add(step)
            prunable = [old for old in kept[1:] if not is_never_pruned(old, keep_every)]
            kept = [old for old in kept if old not in prunable[: max(0, len(prunable) - keep)]]
            states -= {old for old in kept[1:-keep] if old % 8}
    use = disk_use(plan)
    assert use.kept == len(kept)
    assert use.with_state == len(states & set(kept) - {0})
