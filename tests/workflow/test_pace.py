"""A run for a time ends on time, whatever the machine does: a clock that the tests set, and a real run."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from rich.console import Console
from test_pretrain import files_of, stop_after

from etude.config import Settings
from etude.train.schedule import lr_factor, planned_step
from etude.workflow import jobs, pretrain
from etude.workflow.history import RunHistory
from etude.workflow.pace import Pace

PLANNED, EVERY, LOG_EVERY = 1200, 100, 10


def simulated(
    monkeypatch: pytest.MonkeyPatch, seconds_of: Callable[[int], float], asked: float, most: int = 10**9
) -> tuple[float, int, int]:
    """(seconds taken, steps, revisions) of a run whose step s takes ``seconds_of(s)``, and its evaluations 2 s."""
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    pace = Pace(1000.0 + asked, EVERY, most)
    step, num_steps, revisions = 0, PLANNED, 0
    while step < num_steps:
        step += 1
        clock[0] += seconds_of(step)
        if step % LOG_EVERY == 0 and step < num_steps:
            better = pace(step, num_steps)
            revisions += better is not None
            num_steps = better or num_steps
        if step % EVERY == 0:
            clock[0] += 2.0
    return clock[0] - 1000.0, num_steps, revisions


@pytest.mark.parametrize("factor", [0.3, 0.8, 1.0, 1.5, 4.0])
def test_a_machine_of_another_speed_than_measured(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    seconds, steps, _ = simulated(monkeypatch, lambda step: 0.5 * factor, asked=624.0)
    if factor < 4:  # at a fourth of the speed a fifth of the plan is all that there is time for
        assert seconds == pytest.approx(624, rel=0.02)
    assert seconds < 1.1 * 624
    assert (steps > PLANNED) == (factor < 1)


def test_a_machine_that_grows_warm(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds, steps, _ = simulated(monkeypatch, lambda step: 0.5 + 0.0005 * step, asked=624.0)
    assert seconds == pytest.approx(624, rel=0.03)
    assert steps < PLANNED


def test_a_machine_that_does_what_was_measured_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    _, steps, revisions = simulated(monkeypatch, lambda step: 0.5, asked=624.0)
    assert revisions == 0
    assert steps == PLANNED


def test_a_text_is_not_read_more_often_because_there_is_time(monkeypatch: pytest.MonkeyPatch) -> None:
    _, steps, _ = simulated(monkeypatch, lambda step: 0.1, asked=624.0, most=PLANNED)
    assert steps == PLANNED


def test_a_run_of_revised_length_is_recorded_and_goes_on_as_if_never_stopped(
    small_settings: Settings, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    def longer_from_six(plan: object) -> Callable[[int, int], int | None]:
        return lambda step, num_steps: 17 if step == 6 and num_steps == 12 else None

    monkeypatch.setattr(pretrain, "pace_of", longer_from_six)
    whole = jobs.grow(small_settings, console)
    assert (whole.reason, whole.step) == ("finished", 17)
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 9)
        part = jobs.grow(small_settings, console)
    monkeypatch.setattr(pretrain, "pace_of", lambda plan: lambda step, num_steps: None)
    rest = jobs.resume(part.run.path, console)
    assert (rest.reason, rest.step) == ("finished", 17)
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert files_of(rest.run, 17)[name] == files_of(whole.run, 17)[name]
    history = RunHistory.load(rest.run.path)
    assert history.num_steps == 17
    peak = history.steps[0].lr / lr_factor(1, small_settings.train)
    expected = [peak * lr_factor(planned_step(s, 12, ((6, 17),)), small_settings.train) for s in range(1, 18)]
    assert [step.lr for step in history.steps] == pytest.approx(expected)
    assert "17 steps of" in (rest.run.checkpoints / "step-00000017" / "README.md").read_text()
