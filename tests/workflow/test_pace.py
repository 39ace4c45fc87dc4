"""A run with a time budget ends on time, whatever the machine does: with a clock that the tests set, and in reality."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from rich.console import Console
from test_pretrain import files_of, stop_after

from etude.config import Settings, with_values
from etude.plan.pace import Deadline, Pace
from etude.plan.task_costs import TaskCosts
from etude.run.record import RunRecord
from etude.train.loop import Loop
from etude.train.schedule import lr_factor, planned_step
from etude.workflow import fit, jobs
from etude.workflow.close import _until, close
from etude.workflow.prepare import make_plan
from etude.workflow.start import start

STEP, TASKS = 0.5, 2.0
"""Measured seconds of a step, and of the tasks after every twelfth part of the run."""
CASES = pytest.mark.parametrize(
    ("planned", "every", "log_every"), [(1200, 100, 10), (200, 16, 10), (84, 7, 7), (12, 1, 1)]
)


def ending(seconds: float) -> TaskCosts:
    """Return the costs of a run that takes ``seconds`` from its last step to its last line."""
    costs = TaskCosts(0.0, 0.0, 0.0, writing=lambda: seconds, slowdown=lambda: 0.0)
    assert costs.at_the_end == seconds
    return costs


class Machine:
    """A clock that a test sets, and a simulated run whose steps take ``seconds_of(step)`` and its tasks ``tasks``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, planned: int, every: int, log_every: int) -> None:
        self.now = 1000.0
        self.planned, self.every, self.log_every = planned, every, log_every
        self.asked = planned * STEP + self._tasks_between(0, planned) + TASKS
        self.revisions: list[tuple[int, int]] = []
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def _tasks_between(self, first: int, last: int) -> float:
        return TASKS * sum(step % self.every == 0 for step in range(max(1, first), last))

    def run(self, seconds_of: Callable[[int], float], tasks: float = TASKS, most: int = 10**9) -> float:
        """Return the seconds that the whole run takes."""
        pace = Pace(Deadline(1000.0 + self.asked, ending(TASKS), self._tasks_between, most))
        step, num_steps, since = 0, self.planned, 0.0
        while step < num_steps:
            step += 1
            self.now += seconds_of(step)
            since += seconds_of(step)
            if step % self.log_every == 0 and step < num_steps:
                better = pace(step, num_steps, since)
                since = 0.0
                if better is not None:
                    self.revisions.append((step, better))
                    num_steps = better
            if step % self.every == 0 or step == num_steps:
                self.now += tasks
        self.steps = num_steps
        return self.now - 1000.0


@CASES
@pytest.mark.parametrize("factor", [0.3, 0.8, 1.5, 4.0])
def test_a_machine_of_another_speed_than_measured(
    monkeypatch: pytest.MonkeyPatch, planned: int, every: int, log_every: int, factor: float
) -> None:
    machine = Machine(monkeypatch, planned, every, log_every)
    seconds = machine.run(lambda step: STEP * factor, tasks=TASKS * factor)
    undivided = (STEP * log_every + 2 * TASKS) * max(1.0, factor)
    assert seconds == pytest.approx(machine.asked, rel=0.02, abs=undivided)
    assert (machine.steps > planned) == (factor < 1)
    # The change comes early: most of the run follows the first large revision.
    assert machine.revisions[0][0] <= max(4 * log_every, planned // 8)


@CASES
def test_a_machine_that_grows_warm(
    monkeypatch: pytest.MonkeyPatch, planned: int, every: int, log_every: int
) -> None:
    machine = Machine(monkeypatch, planned, every, log_every)
    seconds = machine.run(lambda step: STEP * (1 + step / planned))
    assert seconds == pytest.approx(machine.asked, rel=0.05, abs=STEP * log_every + 2 * TASKS)
    assert machine.steps < planned


@CASES
def test_a_machine_that_does_what_was_measured_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, planned: int, every: int, log_every: int
) -> None:
    machine = Machine(monkeypatch, planned, every, log_every)
    assert machine.run(lambda step: STEP) == pytest.approx(machine.asked)
    assert machine.revisions == []


def test_a_deadline_that_is_past_ends_the_run_at_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, 1200, 100, 10)
    machine.now += machine.asked
    machine.run(lambda step: STEP)
    assert machine.steps == 11


def test_a_text_is_not_read_more_often_because_there_is_time(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, 1200, 100, 10)
    machine.run(lambda step: STEP / 5, most=1200)
    assert machine.steps == 1200


def test_a_real_run_with_less_time_than_planned_ends_early_and_keeps_a_record(
    small_settings: Settings, console: Console
) -> None:
    settings = with_values(
        small_settings, {"train.steps": 4000, "train.eval_every": 1000, "train.log_every": 5}
    )
    settings = with_values(settings, {"train.sample_every": 4000, "train.checkpoint_every": 4000})
    plan, deadline = make_plan(settings, console)
    assert deadline is None
    run = start(plan, console)
    begin = time.monotonic()
    outcome = fit.fit(
        plan, run, console, deadline=Deadline(begin + 4, ending(0.5), lambda first, last: 0.0, 4000)
    )
    assert outcome.reason == "finished"
    history = RunRecord.open(run.path).history
    assert history.num_steps == outcome.step < 4000
    assert history.steps[-1].lr < 0.2 * max(step.lr for step in history.steps)


def test_a_run_of_revised_length_is_recorded_and_goes_on_as_if_never_stopped(
    small_settings: Settings, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_reviser(loop: Loop, *args: object, **kwargs: object) -> None:
        original(loop, *args, **kwargs)  # type: ignore[arg-type]
        loop.revised_length = lambda step, steps, seconds: 17 if step == 6 and steps == 12 else None

    original = Loop.__init__
    monkeypatch.setattr(Loop, "__init__", with_reviser)
    whole = jobs.grow(small_settings, console)
    assert (whole.reason, whole.step) == ("finished", 17)
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 9)
        part = jobs.grow(small_settings, console)
    monkeypatch.setattr(Loop, "__init__", original)
    rest = jobs.resume(part.run.path, console)
    assert (rest.reason, rest.step) == ("finished", 17)
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert files_of(rest.run, 17)[name] == files_of(whole.run, 17)[name]
    history = RunRecord.open(rest.run.path).history
    assert history.num_steps == 17
    peak = history.steps[0].lr / lr_factor(1, small_settings.train)
    expected = [peak * lr_factor(planned_step(s, 12, ((6, 17),)), small_settings.train) for s in range(1, 18)]
    assert [step.lr for step in history.steps] == pytest.approx(expected)
    assert "17 steps of" in (rest.run.checkpoints / "step-00000017" / "README.md").read_text()


def test_costs_are_those_measured_last_and_the_first_time_is_forgotten() -> None:
    costs = TaskCosts(evaluation=9.0, sample=0.0, checkpoint=0.0)
    for seconds, expected in ((5.0, 5.0), (1.0, 1.0), (3.0, 3.0), (1.0, 2.0), (1.0, 1.5)):
        costs.note("evaluation", seconds)
        assert costs.evaluation == expected
    clock = iter([10.0, 14.0])
    events = costs.timed("sample", lambda state: [], lambda: next(clock))(None)  # type: ignore[arg-type]
    assert (events, costs.sample) == ([], 4.0)


def test_costs_between_steps_are_counted_by_what_is_due(small_settings: Settings, console: Console) -> None:
    plan = make_plan(small_settings, console)[
        0
    ]  # evaluations every 4 steps, samples every 6, checkpoints every 5
    costs = TaskCosts(evaluation=1.0, sample=100.0, checkpoint=10_000.0)
    # Evaluations at 1, 2, 4, 5, 8, 10; samples at 6; checkpoints at 1, 2, 4, 5, 8, 10.
    assert costs.between(plan, 0, 12) == 6 + 100 + 60_000
    assert costs.between(plan, 6, 9) == 1 + 100 + 10_000
    assert costs.between(plan, 9, 9) == 0


def test_a_short_time_is_looked_at_more_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    silences = [
        Deadline(1000.0 + left, ending(0), lambda a, b: 0.0, 1).silence for left in (-5, 20, 60, 3600)
    ]
    assert silences == pytest.approx([0.1, 0.2, 0.6, 5.0])


def test_what_is_shown_at_the_end_is_cut_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1000, 2000))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    assert _until(iter("abcdefg"), 1002.5) == "abcd…"
    assert _until(iter("abc"), 1500.0) == "abc"
    costs = TaskCosts(0.0, 0.0, 0.0, slowdown=lambda: 9.0, most_closing=3.0)
    assert costs.at_the_end == 3.0
    clock = iter([1000.0, 1000.0])
    deadlines = [Deadline(1000.0 + left, costs, lambda a, b: 0.0, 1) for left in (10, 8)]
    assert [deadline.samples_until for deadline in deadlines] == [1010.0, float("-inf")]


def test_a_run_without_time_for_samples_says_so(small_settings: Settings, console: Console) -> None:
    outcome = jobs.grow(small_settings, console)
    close(outcome, console, Deadline(time.monotonic() - 1, ending(0.5), lambda first, last: 0.0, 12))
    assert "No time was left for samples." in console.file.getvalue()  # type: ignore[attr-defined]
