"""The training loop, the same for every objective.

Each iteration makes one step, logs it, and runs the tasks that are due (evaluate, sample, save). The loop writes no
files and prints nothing: it emits events to its listeners, and the tasks do the rest.
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
from etude.train.batch import MicroBatch
from etude.train.control import Pause
from etude.train.objectives import Objective
from etude.train.optimizer import UpdateRules
from etude.train.parallel import ALONE, Ranks, group_errors
from etude.train.schedule import Revision, last_step, lr_factor_at, momentum
from etude.train.spikes import LossWatch
from etude.train.step import GradientReader, OutOfMemory, StepResult, update_step


@dataclass
class TrainState:
    """Everything that changes from step to step. The data order is not part of it: it follows from the step."""

    model: LanguageModel
    rules: UpdateRules
    step: int = 0
    tokens_seen: int = 0
    wall_time: float = 0.0  # seconds of training, over all sessions
    revisions: tuple[Revision, ...] = ()  # of the planned number of steps, in a run with a time budget
    skipped: int = 0  # steps in a row, up to this one, that were not finite
    micro_batch_rows: int | None = None  # fewer than planned, where those did not fit the memory
    last: StepResult | None = None  # of the newest step of this session; not in checkpoints
    seed: int = 0  # of the run, from which the first factors of an adapter follow; not in checkpoints

    def arrive(self, result: StepResult, num_tokens: int) -> None:
        """Advance to the next step, whose update was made or skipped."""
        self.step += 1
        self.tokens_seen += num_tokens
        self.skipped = 0 if result.applied else self.skipped + 1
        self.last = result


def make_step(
    state: TrainState,
    objective: Objective,
    settings: ResolvedTrain,
    device: Device,
    ranks: Ranks = ALONE,
    read_gradient: GradientReader | None = None,
) -> StepResult:
    """Make the update that leads from ``state`` to its next step. Training and replay both call this.

    Raises:
        OutOfMemory: the gradient did not fit the memory. Nothing was changed.
        NothingToTrain: the batch has no trained token.
    """
    step, began = state.step + 1, time.perf_counter()
    batch = objective.batch(step)
    waited = time.perf_counter() - began
    result = update_step(
        state.rules.trained,
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
    """Work between steps, such as to evaluate, sample or save.

    Attributes:
        run: does the work, and returns events to emit. It runs at step 0, at every step that is ``due``, and at the
            last step.
        due: returns whether to run after a step.
        on_stop: whether to run at the last step of an interrupted session too.
        finish: waits for work in the background. The loop calls it before it ends.
        before: called before the update of a step after which the task runs, when its gradient is there and the
            activations are not. It must not change the state.
    """

    run: Callable[[TrainState], Sequence[Event]]
    due: Callable[[int], bool]
    on_stop: bool = False
    finish: Callable[[], None] = lambda: None
    before: Callable[[TrainState], None] | None = None


LengthReviser = Callable[[int, int, float], int | None]
"""(step, number of steps, seconds of the steps since the last call) -> a better number of steps, or None."""
LONGEST_SILENCE = 5.0
"""Seconds after which a run with a time budget logs and checks the clock, whatever ``log_every`` says."""


@dataclass
class Loop:
    """The parts of a run, and the loop over its steps.

    Attributes:
        should_stop: returns whether a stop was requested, such as by a signal.
        revised_length: revises the number of steps in a run with a time budget.
        longest_silence: seconds between two logs, at most, in such a run.
        watch: detects spikes of the loss.
        pause: may hold the loop before a step.
    """

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
    pause: Pause | None = None
    # (step, tokens seen, loss, gradient norm): scalars stay on the device until they are logged.
    _unlogged: list[tuple[int, int, Tensor, Tensor]] = field(default_factory=list)
    _clock: float = 0.0
    _done: dict[int, int] = field(default_factory=dict)  # number of a task -> step after which it ran last

    def run(self) -> str:
        """Train until the last step of the run, or until ``should_stop``. Returns "finished" or "stopped".

        Raises:
            EtudeError: too many steps in a row were not finite, or another rank has ended. In the first case the tasks
                of a stop run first.
        """
        with group_errors():  # of a divided network, every part of a step communicates
            return self._run()

    def _run(self) -> str:
        state = self.state
        first = state.step
        if self._is_lost():  # the last session ended so, and the user resumed it: count from 0
            state.skipped = 0
        self._clock = time.perf_counter()
        if state.step == 0:
            self._do_tasks(lambda task: True)
        # The stop test is a collective: here the other ranks also wait for the tasks of rank 0.
        while state.step < self.num_steps and not self._ends_early():
            if self.pause is not None and self.pause.due():
                self._log()
                self.pause.wait(state.step)
                self._clock = time.perf_counter()  # a pause is not time of training
                if self._ends_early():
                    break
            self.one_step()
            if self._is_log_due():
                self._revise_length(self._log())
            if state.step < self.num_steps:  # the tasks of the last step run below
                self._do_tasks(lambda task: task.due(state.step))
                if (
                    state.step >= self.num_steps
                ):  # a task ended the run: the other ranks, without tasks, end too
                    self.ranks.any(True)
        reason = "finished" if state.step >= self.num_steps else "stopped"
        self._log()
        if state.step > first:  # otherwise an earlier session has run them
            self._do_tasks(lambda task: reason == "finished" or task.on_stop)
        for task in self.tasks:
            task.finish()
        self._emit(EndEvent(state.step, state.tokens_seen, state.wall_time, reason))
        if self._is_lost():
            raise EtudeError(self._lost())
        return reason

    def _ends_early(self) -> bool:
        """Return whether to stop before the next step: all ranks stop at the same one.

        A stop request on one rank stops all; whether a step is finite is identical on all ranks.
        """
        return self.ranks.any(self.should_stop()) or self._is_lost()

    def _is_lost(self) -> bool:
        """Return whether too many steps in a row were not finite."""
        return self.settings.on_nonfinite == "stop" and self.state.skipped >= self.settings.nonfinite_in_a_row

    def _lost(self) -> str:
        last, count = self.state.step, self.state.skipped
        return (
            f"the loss or its gradient was not a finite number in {count} steps in a row, up to step {last}: "
            f"the weights are as they were after step {last - count}; continue with a smaller --set "
            f"{' and '.join(self.state.rules.rate_settings)}, or with --set train.on_nonfinite=skip"
        )

    @property
    def num_steps(self) -> int:
        """Number of steps of the whole run, after revisions."""
        return last_step(self.objective.num_steps, self.state.revisions)

    def one_step(self) -> StepResult:
        """Make the next step, in smaller micro-batches where memory runs out, and note it for the log."""
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
        """Make the next update; None where it ran out of memory and micro-batches were halved for another attempt."""
        try:
            return make_step(
                self.state, self.objective, self.settings, self.device, self.ranks, self._run_before
            )
        except OutOfMemory:
            # Several ranks cannot retry: the others already wait for this one's gradient.
            rows = self.objective.halve_micro_batches() if self.ranks.count == 1 else None
            if rows is None:
                raise
        # Outside the handler: inside it, the exception's traceback keeps the tensors of the failed pass alive.
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
        """Revise the number of steps. This precedes the tasks of the step, so a checkpoint of the step includes it."""
        state = self.state
        if self.revised_length is None or state.step >= self.num_steps:
            return
        better = self.revised_length(state.step, self.num_steps, seconds)
        if better is not None:
            state.revisions = (*state.revisions, (state.step, better))
            self._emit(LengthEvent(state.step, state.tokens_seen, state.wall_time, better))

    def _log(self) -> float:
        """Emit the events of all steps since the last call. Returns the seconds that these steps took."""
        if not self._unlogged:
            return 0.0
        self.device.synchronize()  # a GPU may be steps behind: the clock must include its work
        before, seconds = self.state.wall_time, self._advance_clock()
        rate = self.objective.tokens_per_step * len(self._unlogged) / max(seconds, 1e-9)
        peak, planned = self.settings.lr, self.objective.num_steps
        for number, (step, tokens_seen, loss, grad_norm) in enumerate(self._unlogged, start=1):
            value = float(loss)
            where = (step, tokens_seen, before + seconds * number / len(self._unlogged))
            lr = peak * lr_factor_at(step, planned, self.state.revisions, self.settings)
            self._emit(StepEvent(*where, value, float(grad_norm), lr, rate))
            usual = self.watch.spike(step, value)
            if usual is not None:
                self._emit(SpikeEvent(*where, value, usual, self.objective.row_sources(step)))
        self._unlogged.clear()
        return seconds

    def _advance_clock(self) -> float:
        """Add the time since the last call to the wall time of the run, and return it."""
        now = time.perf_counter()
        seconds, self._clock = now - self._clock, now
        self.state.wall_time += seconds
        return seconds

    def _run_before(self, batch: Sequence[MicroBatch]) -> None:
        """Call ``before`` of the tasks that run after the step whose gradient was just computed."""
        step = self.state.step + 1
        for task in self.tasks:
            if task.before is not None and (task.due(step) or step == self.num_steps):
                task.before(self.state)

    def _do_tasks(self, wanted: Callable[[Task], bool]) -> None:
        """Run the tasks that are wanted, in their order. What a task does may make a later one due, or end the run."""
        if not self.ranks.agree(any(map(wanted, self.tasks))):
            return
        self._log()  # first, so that a checkpoint is never ahead of the log
        for number, task in enumerate(self.tasks):
            # A run that a task ended comes here twice in one step. Of a divided network, a task is work of all ranks.
            if self.ranks.agree(self._done.get(number) != self.state.step and wanted(task)):
                self._done[number] = self.state.step
                for event in task.run(self.state):
                    self._emit(event)
        self._advance_clock()

    def _emit(self, event: Event) -> None:
        for listener in self.listeners:
            listener(event)
