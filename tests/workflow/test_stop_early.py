"""Runs that end where they cost more than they gain: also after an interruption; and their best step is kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console
from test_base import published, settings
from test_pretrain import comparable, files_of, stop_after

from etude.config import Settings, with_values
from etude.errors import InputError
from etude.plan.disk_use import disk_use
from etude.run import RunFolder
from etude.run.checkpoints import list_checkpoints, newest_good_checkpoint, step_of
from etude.run.events import EvalEvent, Event, ReferenceEvent
from etude.run.record import RunRecord
from etude.train.loop import TrainState
from etude.train.tasks import Evaluate
from etude.watch.time_machine import TimeMachine
from etude.workflow import jobs
from etude.workflow.prepare import make_plan

__all__ = ["published", "settings"]
HELD_OUT = {0: 3.0, 3: 2.8, 6: 2.5, 9: 2.4, 12: 2.3}
REFERENCE = {0: 1.0, 3: 1.1, 6: 1.2, 9: 1.4, 12: 1.5}
BEST, END = 6, 12
"""The sums: 0, -0.1, -0.3, -0.2, -0.2."""


@pytest.fixture
def stopping(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Return settings of 24 steps of a run that ends early, whose evaluations give prepared numbers."""

    def evaluate(task: Evaluate, state: TrainState) -> Sequence[Event]:
        assert task.reference is not None
        where, step = (state.step, state.tokens_seen, state.wall_time), min(state.step, END)
        reference = ReferenceEvent(*where, 1.0, REFERENCE[step], 100, task.reference[0])
        return [reference, EvalEvent(*where, 1.0, HELD_OUT[step], 100)]

    monkeypatch.setattr(Evaluate, "__call__", evaluate)
    changes = {
        "steps": 24,
        "eval_every": 3,
        "sample_every": 24,
        "checkpoint_every": 24,
        "keep_checkpoints": 1,
    }
    changes |= {"stop_early": True, "patience": 2, "state_every": 1}
    return with_values(settings, {f"train.{key}": value for key, value in changes.items()})


def kept(run: RunFolder) -> list[int]:
    return [step_of(folder) for folder in list_checkpoints(run.checkpoints)]


def test_a_run_ends_where_the_sum_stalls_and_keeps_the_best_step(
    stopping: Settings, console: Console
) -> None:
    outcome = jobs.grow(stopping, console)
    run = outcome.run
    assert (outcome.reason, outcome.step) == ("finished", END)
    assert kept(run) == [0, 1, 2, 4, BEST, 8, END]  # step 3 was the best for a while
    printed = " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]
    assert "It ended early, at step 12: in 2 evaluations" in printed
    assert f"The best step is 6: etude generate {run.path}@6" in printed
    assert "-0.300 bits per byte: -0.500 on held-out text and +0.200 on the reference text" in printed
    assert "Best step up to here: 6." in files_of(run, END)["README.md"].decode()
    record = RunRecord.open(run.path)
    assert record.history.num_steps == END
    assert [event.step for event in record.evals] == list(HELD_OUT)
    machine = TimeMachine(run.path)
    machine.go_to(END)
    assert machine.proof.holds
    use = disk_use(make_plan(stopping, console)[0])
    assert use.kept >= len(kept(run)) - 1


def test_an_interrupted_run_ends_at_the_same_step_with_the_same_bits(
    stopping: Settings, console: Console
) -> None:
    whole = jobs.grow(stopping, console).run
    for stop in (BEST, END - 1):
        with pytest.MonkeyPatch.context() as patch:
            stop_after(patch, stop)
            part = jobs.grow(stopping, console)
        assert (part.reason, part.step) == ("stopped", stop)
        rest = jobs.resume(part.run.path, console)
        assert (rest.reason, rest.step) == ("finished", END)
        assert comparable(rest.run) == comparable(whole)
        for name in ("model.safetensors", "optimizer.safetensors"):
            assert files_of(rest.run, END)[name] == files_of(whole, END)[name]
        assert files_of(rest.run, BEST)["model.safetensors"] == files_of(whole, BEST)["model.safetensors"]
        assert newest_good_checkpoint(rest.run.checkpoints)[0].ended_early


def test_it_continues_only_with_other_settings(stopping: Settings, console: Console) -> None:
    run = jobs.grow(stopping, console).run
    for overrides in ([], ["train.steps=48"]):
        with pytest.raises(InputError, match=r"ended early at step 12.*train\.stop_early=false"):
            jobs.resume(run.path, console, overrides)
    with pytest.raises(InputError, match="fork an earlier step"):
        jobs.fork(str(run.path), console)
    forked = jobs.fork(f"{run.path}@{BEST}", console)
    assert (forked.reason, forked.step) == ("finished", END)
    outcome = jobs.resume(run.path, console, ["train.stop_early=false"])
    assert (outcome.reason, outcome.step) == ("finished", 24)
    tree = with_values(stopping, {"train.stop_early": False}).model_dump(exclude_unset=True)
    del tree["train"]["patience"]  # which would have no effect
    whole = jobs.grow(Settings.model_validate(tree), console).run
    assert files_of(run, 24)["model.safetensors"] == files_of(whole, 24)["model.safetensors"]
    assert RunRecord.open(run.path).history.num_steps is None


def test_a_run_that_learns_nothing_else_than_to_forget_ends_at_its_base(
    settings: Settings, console: Console
) -> None:
    changes = {"train.lr": 1.0, "train.stop_early": True, "train.patience": 1, "train.eval_every": 2}
    outcome = jobs.grow(with_values(settings, changes), console)
    assert outcome.step == 2
    printed = " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]
    assert "No step gained more than it cost: the best step is 0" in printed


def test_without_a_reference_text_it_is_refused(
    small_settings: Settings, settings: Settings, text_folder: Path, console: Console
) -> None:
    for given in (small_settings, with_values(settings, {"train.reference": "none"})):
        with pytest.raises(InputError, match="this run has none: begin with a model"):
            make_plan(with_values(given, {"train.stop_early": True}), console)
    named = {"train.stop_early": True, "train.reference": str(next(text_folder.glob("*.txt")))}
    assert make_plan(with_values(small_settings, named), console)[0].settings.train.stop_early
