"""Seconds that each task between steps takes: estimated from structure, then measured and kept up to date."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from etude.plan.cadence import (
    CLOSING_SAMPLE_TOKENS,
    CLOSING_SAMPLES,
    SAMPLE_TOKENS,
    evaluation_due,
    sample_due,
    save_due,
)
from etude.plan.plan import Plan
from etude.run.events import Event
from etude.train.loop import TrainState

CLOSING_SECONDS = 2.0
"""To load what was saved, besides the samples at the very end; the pictures and words of it, and to end the process."""
LOADING_SECONDS = 1.0
"""Of these, what it takes to load."""
SCORING = 0.45
"""Of the time to learn from a token, the time to score it."""
SAMPLE_SECONDS_A_LAYER, CHECKPOINT_SECONDS, BYTES_A_SECOND = 0.02, 0.1, 2e8
"""Before anything was measured."""
MOST_SLOWDOWN = 10.0


class Slowdown:
    """How many times as long work on one thread takes because others use its core, since this was made."""

    def __init__(self) -> None:
        self._wall, self._thread = time.monotonic(), time.thread_time()

    def __call__(self) -> float:
        wall, used = time.monotonic() - self._wall, time.thread_time() - self._thread
        return 1.0 if wall < 0.2 else max(1.0, min(MOST_SLOWDOWN, wall / max(1e-3, used)))


@dataclass
class TaskCosts:
    """Seconds that each thing between steps takes once.

    ``writing``: of a checkpoint's file, beside the steps; ``slowdown``: of work on one thread, at this moment;
    ``most_closing``: for what is shown at the end, which the clock cuts short.
    """

    evaluation: float
    sample: float
    checkpoint: float
    writing: Callable[[], float] = lambda: 0.0
    slowdown: Callable[[], float] = lambda: 1.0
    most_closing: float = math.inf
    _due: dict[tuple[object, ...], list[list[int]]] = field(default_factory=dict)
    _times: dict[str, int] = field(default_factory=dict)  # that each was measured

    @classmethod
    def foreseen(cls, plan: Plan, step_seconds: float, slowdown: Callable[[], float]) -> TaskCosts:
        """From structure and the time of a step, on a machine that is as busy as ``slowdown`` says."""
        train, times = plan.settings.train, slowdown()
        tokens = train.batch_rows * train.context
        scored = min(train.eval_tokens, plan.data.validation.num_tokens)
        written = (plan.memory.weights + plan.memory.optimizer) / BYTES_A_SECOND
        return cls(
            SCORING * scored * step_seconds / tokens,
            SAMPLE_SECONDS_A_LAYER * plan.model.num_hidden_layers * times,
            (CHECKPOINT_SECONDS + written) * times,
            slowdown=slowdown,
        )

    def timed(
        self,
        name: Literal["evaluation", "sample", "checkpoint"],
        run: Callable[[TrainState], Sequence[Event]],
        clock: Callable[[], float] = time.monotonic,
    ) -> Callable[[TrainState], Sequence[Event]]:
        """``run``, which from now on is noted here with what it takes."""

        def measured(state: TrainState) -> Sequence[Event]:
            begin = clock()
            events = run(state)
            self.note(name, clock() - begin)
            return events

        return measured

    def note(self, name: Literal["evaluation", "sample", "checkpoint"], seconds: float) -> None:
        """Take up that ``name`` took ``seconds``: the newest counts, or its average with the last if that is more.

        The first is forgotten with the second: it also found its memory and its modules.
        """
        self._times[name] = self._times.get(name, 0) + 1
        if self._times[name] > 2:
            seconds = max(seconds, (seconds + getattr(self, name)) / 2)
        setattr(self, name, seconds)

    def between(self, plan: Plan, first: int, last: int) -> float:
        """Those that are due from step ``first`` on and before step ``last``, but for the ones before step 1."""
        train = plan.settings.train
        every = (train.eval_every, train.sample_every, train.checkpoint_every, train.keep_every)
        counts = self._due.setdefault(every, [[0, 0, 0]])
        costs, start = (self.evaluation, self.sample, self.checkpoint), max(1, first)
        if last <= start:
            return 0.0
        while len(counts) < last:  # counts[n]: how often each is due from step 1 to step n
            step = len(counts)
            dues = (evaluation_due(train), sample_due(train), save_due(train))
            counts.append([count + due(step) for count, due in zip(counts[-1], dues, strict=True)])
        numbers = zip(counts[last - 1], counts[start - 1], strict=True)
        return sum(cost * (end - begin) for cost, (end, begin) in zip(costs, numbers, strict=True))

    @property
    def each_once(self) -> float:
        return self.evaluation + self.sample + self.checkpoint

    @property
    def at_the_end(self) -> float:
        """From the last step to the last line: each once, and the samples that close a run."""
        samples = self.sample * CLOSING_SAMPLES * CLOSING_SAMPLE_TOKENS / SAMPLE_TOKENS
        closing = min(self.most_closing, CLOSING_SECONDS * self.slowdown() + samples)
        return self.each_once + self.writing() + closing
