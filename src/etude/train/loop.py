"""The training loop: the only one there is.

It takes an objective (which batches, which loss, how many steps) and goes round: step, tell, do what is due.
It writes no file and draws nothing; it emits events, and it runs the tasks that it was given between steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from etude.config import ResolvedTrain
from etude.device import Device
from etude.errors import EtudeError
from etude.model.language_model import LanguageModel
from etude.run.events import (
    EndEvent,
    Event,
    LengthEvent,
    Listener,
    MicroBatchEvent,
    SkippedEvent,
    SpikeEvent,
    StepEvent,
)
from etude.train.control import Hold
from etude.train.objectives import Objective
from etude.train.optimizer import UpdateRules
from etude.train.parallel import ALONE, Ranks
from etude.train.schedule import Revision, last_step, lr_factor_at, momentum
from etude.train.spikes import LossWatch
from etude.train.step import GradientReader, OutOfMemory, StepResult, update_step


@dataclass
class TrainState:
    """All that changes from step to step. The order of the data is not in it: it follows from the step."""

    model: LanguageModel
    rules: UpdateRules
    step: int = 0
    tokens_seen: int = 0
    wall_time: float = 0.0  # seconds of training, over all sessions
    revisions: tuple[Revision, ...] = ()  # of the planned number of steps, where a time was given
    left_out: int = 0  # steps in a row, up to this one, that were not finite
    micro_batch_rows: int | None = None  # fewer than planned, where those did not fit the memory
    last: StepResult | None = None  # of the newest step of this session; no checkpoint holds it

    def arrive(self, result: StepResult, num_tokens: int) -> None:
        """Stand at the next step, whose update has been made."""
        self.step += 1
        self.tokens_seen += num_tokens
        self.left_out = 0 if result.applied else self.left_out + 1
        self.last = result


def make_step(
    state: TrainState,
    objective: Objective,
    settings: ResolvedTrain,
    device: Device,
    ranks: Ranks = ALONE,
    read_gradient: GradientReader | None = None,
) -> StepResult:
    """Make the update that leads from ``state`` to its next step: in training, and in every replay.

    Raises:
        OutOfMemory: its gradient found no memory; nothing was changed.
        NothingToTrain: its batch has no trained token.
    """
    step, began = state.step + 1, time.perf_counter()
    batch = objective.batch(step)
    waited = time.perf_counter() - began
    result = update_step(
        list(state.model.parameters()),
        objective.loss,
        batch,
        state.rules,
        lr_factor=lr_factor_at(step, objective.num_steps, state.revisions, settings),
        momentum=momentum(step, settings),
        max_grad_norm=settings.max_grad_norm,
        device=device,
        ranks=ranks,
        read_gradient=read_gradient,
    )
    result = replace(result, seconds=replace(result.seconds, batch=waited))
    state.arrive(result, objective.tokens_per_step)
    return result


@dataclass(frozen=True)
class Task:
    """Something to do between steps: evaluate, sample, save. It may emit events of its own.

    It is done at step 0, at every step that ``due`` says, and at the last one; after an interruption only when
    ``on_stop`` is set. ``before`` has a look at the state that such a step begins with (there is none before step 0),
    and changes nothing. ``finish`` waits for what goes on beside the steps; the loop does not end before.
    """

    run: Callable[[TrainState], Sequence[Event]]
    due: Callable[[int], bool]
    on_stop: bool = False
    finish: Callable[[], None] = lambda: None
    before: Callable[[TrainState], None] | None = None


LengthReviser = Callable[[int, int, float], int | None]
"""Given the step, the number of steps, and the seconds that the steps since the last time took: a better number of
steps, if there is one."""
LONGEST_SILENCE = 5.0
"""Seconds after which a run that is to keep a time looks at the clock, however many steps make a line of the log."""


@dataclass
class Loop:
    """The parts of a run, and the way round."""

    state: TrainState
    objective: Objective
    settings: ResolvedTrain
    device: Device
    tasks: Sequence[Task] = ()
    listeners: Sequence[Listener] = ()
    should_stop: Callable[[], bool] = lambda: False
    revised_length: LengthReviser | None = None
    longest_silence: float = LONGEST_SILENCE
    ranks: Ranks = ALONE
    watch: LossWatch = field(default_factory=LossWatch)
    hold: Hold | None = None
    _unlogged: list[tuple[int, int, Tensor, Tensor]] = field(default_factory=list)
    _clock: float = 0.0

    def run(self) -> str:
        """Go round until the run's last step, or until ``should_stop``; returns finished or stopped.

        Raises:
            EtudeError: too many steps in a row were not finite; what is due when it stops is done first.
        """
        state = self.state
        first = state.step
        if self._is_lost():  # that was the end of the last session; the user wants another try
            state.left_out = 0
        self._clock = time.perf_counter()
        if state.step == 0:
            self._do_tasks(lambda task: True)
        # All ranks stop at the same step; here they also wait for what the first does between steps.
        while state.step < self.num_steps and not self._ends_early():
            if self.hold is not None and self.hold.due():
                self._log()
                self.hold.wait(state.step)
                self._clock = time.perf_counter()
                if self._ends_early():
                    break
            self._look_before(state.step + 1)
            self.one_step()
            if self._is_log_due():
                self._revise_length(self._log())
            if state.step < self.num_steps:
                self._do_tasks(lambda task: task.due(state.step))
        reason = "finished" if state.step >= self.num_steps else "stopped"
        self._log()
        if state.step > first:  # otherwise an earlier session has done them
            self._do_tasks(lambda task: reason == "finished" or task.on_stop)
        for task in self.tasks:
            task.finish()
        self._emit(EndEvent(state.step, state.tokens_seen, state.wall_time, reason))
        if self._is_lost():
            raise EtudeError(self._lost())
        return reason

    def _ends_early(self) -> bool:
        """All ranks stop at the same step: one that is asked to stops all, and a step is finite for all or none."""
        return self.ranks.any(self.should_stop()) or self._is_lost()

    def _is_lost(self) -> bool:
        return (
            self.settings.on_nonfinite == "stop" and self.state.left_out >= self.settings.nonfinite_in_a_row
        )

    def _lost(self) -> str:
        last, count = self.state.step, self.state.left_out
        return (
            f"the loss or its gradient was not a finite number in {count} steps in a row, up to step {last}: "
            f"the weights are as they were after step {last - count}; continue with a smaller --set "
            f"{' and '.join(self.state.rules.rate_settings)}, or with --set train.on_nonfinite=skip"
        )

    @property
    def num_steps(self) -> int:
        """Steps of the whole run, as it stands."""
        return last_step(self.objective.num_steps, self.state.revisions)

    def one_step(self) -> StepResult:
        """The update that makes the next step."""
        state = self.state
        result = self._try()
        while result is None:
            result = self._try()
        if result.applied:
            self._unlogged.append((state.step, state.tokens_seen, result.loss, result.grad_norm))
        else:
            self._log()
            where = (state.step, state.tokens_seen, state.wall_time)
            values = (str(float(result.loss)), str(float(result.grad_norm)))
            self._emit(SkippedEvent(*where, *values, self.objective.row_sources(state.step)))
        return result

    def _try(self) -> StepResult | None:
        """The next update; None when it did not fit the memory, and may in the smaller pieces to come."""
        try:
            return make_step(self.state, self.objective, self.settings, self.device, self.ranks)
        except OutOfMemory:
            # The other ranks would wait for this one's gradient.
            rows = self.objective.halve_micro_batches() if self.ranks.count == 1 else None
            if rows is None:
                raise
        # Only here, outside of the handler, has everything that the failed pass held been let go of.
        self.state.rules.zero_grad()
        self.device.release_memory()
        self.state.micro_batch_rows = rows
        self._emit(MicroBatchEvent(self.state.step, self.state.tokens_seen, self.state.wall_time, rows))
        return None

    def _is_log_due(self) -> bool:
        step = self.state.step
        overdue = self.revised_length is not None and time.perf_counter() - self._clock > self.longest_silence
        return step % self.settings.log_every == 0 or step == self.num_steps or overdue

    def _revise_length(self, seconds: float) -> None:
        """Take up a better number of steps; what is saved at this step knows of it."""
        state = self.state
        if self.revised_length is None or state.step >= self.num_steps:
            return
        better = self.revised_length(state.step, self.num_steps, seconds)
        if better is not None:
            state.revisions = (*state.revisions, (state.step, better))
            self._emit(LengthEvent(state.step, state.tokens_seen, state.wall_time, better))

    def _log(self) -> float:
        """Read and tell the scalars of the steps since the last time.

        Returns the seconds that they took.
        """
        if not self._unlogged:
            return 0.0
        self.device.synchronize()
        before, seconds = self.state.wall_time, self._advance_clock()
        rate = self.objective.tokens_per_step * len(self._unlogged) / max(seconds, 1e-9)
        peak, planned = self.settings.lr, self.objective.num_steps
        for number, (step, tokens_seen, loss, grad_norm) in enumerate(self._unlogged, start=1):
            value = float(loss)
            where = (step, tokens_seen, before + seconds * number / len(self._unlogged))
            lr = peak * lr_factor_at(step, planned, self.state.revisions, self.settings)
            self._emit(StepEvent(*where, value, float(grad_norm), lr, rate))
            usual = self.watch.spike(value)
            if usual is not None:
                self._emit(SpikeEvent(*where, value, usual, self.objective.row_sources(step)))
        self._unlogged.clear()
        return seconds

    def _advance_clock(self) -> float:
        now = time.perf_counter()
        seconds, self._clock = now - self._clock, now
        self.state.wall_time += seconds
        return seconds

    def _look_before(self, step: int) -> None:
        for task in self.tasks:
            if task.before is not None and (task.due(step) or step == self.num_steps):
                task.before(self.state)

    def _do_tasks(self, wanted: Callable[[Task], bool]) -> None:
        due = [task for task in self.tasks if wanted(task)]
        if not due:
            return
        self._log()
        for task in due:
            for event in task.run(self.state):
                self._emit(event)
        self._advance_clock()

    def _emit(self, event: Event) -> None:
        for listener in self.listeners:
            listener(event)
