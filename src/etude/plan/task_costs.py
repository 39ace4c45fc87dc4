"""Seconds of each task between steps: estimated from the configuration, then measured and updated."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from etude.data.reference import reference_text
from etude.plan.cadence import (
    CLOSING_SAMPLE_TOKENS,
    CLOSING_SAMPLES,
    SAMPLE_TOKENS,
    SCORING,
    evaluation_due,
    sample_due,
    save_due,
)
from etude.plan.plan import Plan
from etude.plan.report_costs import ReportWork
from etude.run.events import Event
from etude.train.loop import TrainState
from etude.train.optimizer import saved_weights

CLOSING_SECONDS = 2.0
"""Time at the end of a run to load the saved model, draw plots, write the report and exit, without samples."""
LOADING_SECONDS = 1.0
"""The part of it that loads the model."""
SAMPLE_SECONDS_A_LAYER, CHECKPOINT_SECONDS, BYTES_A_SECOND = 0.02, 0.1, 2e8
"""Estimates before the first measurement."""
MOST_SLOWDOWN = 10.0
"""Limit of :class:`Slowdown`."""


class Slowdown:
    """Measures the factor by which other programs slow down work on one thread, since its construction."""

    def __init__(self) -> None:
        self._wall, self._thread = time.monotonic(), time.thread_time()

    def __call__(self) -> float:
        """Return the factor, at least 1."""
        wall, used = time.monotonic() - self._wall, time.thread_time() - self._thread
        return 1.0 if wall < 0.2 else max(1.0, min(MOST_SLOWDOWN, wall / max(1e-3, used)))


@dataclass
class TaskCosts:
    """Seconds that a task between steps takes, once.

    Attributes:
        evaluation, sample, checkpoint: seconds of each task; for a checkpoint, those that the steps wait for.
        writing: returns the seconds until the current checkpoint is on disk.
        slowdown: returns the current slowdown of work on one thread.
        most_closing: most seconds for the report at the end, which the deadline cuts short.
        evaluated_tokens: tokens that an evaluation scores.
        report: the work of the report of a tuned run; None: the report consists of samples.
    """

    evaluation: float
    sample: float
    checkpoint: float
    writing: Callable[[], float] = lambda: 0.0
    slowdown: Callable[[], float] = lambda: 1.0
    most_closing: float = math.inf
    evaluated_tokens: int = 1
    report: ReportWork | None = None
    _due: dict[tuple[object, ...], list[list[int]]] = field(default_factory=dict)
    _times: dict[str, int] = field(default_factory=dict)  # number of measurements of each task

    @classmethod
    def estimated(cls, plan: Plan, step_seconds: float, slowdown: Callable[[], float]) -> TaskCosts:
        """Estimate from the configuration and the time of a step, on a machine with this ``slowdown``."""
        train, times = plan.settings.train, slowdown()
        tokens = train.batch_rows * train.context
        scored = min(train.eval_tokens, plan.data.validation.num_tokens) + _reference_tokens(plan)
        written = (4 * saved_weights(plan.model) + plan.memory.optimizer) / BYTES_A_SECOND
        return cls(
            SCORING * scored * step_seconds / tokens,
            SAMPLE_SECONDS_A_LAYER * plan.model.num_hidden_layers * times,
            (CHECKPOINT_SECONDS + written) * times,
            slowdown=slowdown,
            evaluated_tokens=max(1, scored),
        )

    def timed(
        self,
        name: Literal["evaluation", "sample", "checkpoint"],
        run: Callable[[TrainState], Sequence[Event]],
        clock: Callable[[], float] = time.monotonic,
    ) -> Callable[[TrainState], Sequence[Event]]:
        """Wrap ``run`` so that the time of each call is noted."""

        def measured(state: TrainState) -> Sequence[Event]:
            begin = clock()
            events = run(state)
            self.note(name, clock() - begin)
            return events

        return measured

    def note(self, name: Literal["evaluation", "sample", "checkpoint"], seconds: float) -> None:
        """Update the cost of ``name`` to ``seconds``, or to the mean with the previous cost if that is more.

        The second measurement replaces the first, which includes the allocation of memory and imports.
        """
        self._times[name] = self._times.get(name, 0) + 1
        if self._times[name] > 2:
            seconds = max(seconds, (seconds + getattr(self, name)) / 2)
        setattr(self, name, seconds)

    def between(self, plan: Plan, first: int, last: int) -> float:
        """Return the seconds of all tasks due at steps in [first, last), without those of step 0."""
        train = plan.settings.train
        every = (train.eval_every, train.sample_every, train.checkpoint_every, train.keep_every)
        counts = self._due.setdefault(every, [[0, 0, 0]])
        costs, start = (self.evaluation, self.sample, self.checkpoint), max(1, first)
        if last <= start:
            return 0.0
        evaluates, samples, saves = evaluation_due(train), sample_due(train), save_due(train)
        while len(counts) < last:  # counts[n]: how often each is due from step 1 to step n
            step = len(counts)
            evaluated = evaluates(step)
            saved = saves(step) or (train.stop_early and evaluated)  # it may be the best so far
            due = (evaluated, samples(step), saved)
            counts.append([count + now for count, now in zip(counts[-1], due, strict=True)])
        numbers = zip(counts[last - 1], counts[start - 1], strict=True)
        return sum(cost * (end - begin) for cost, (end, begin) in zip(costs, numbers, strict=True))

    @property
    def each_once(self) -> float:
        """Seconds of one evaluation, one sample and one checkpoint."""
        return self.evaluation + self.sample + self.checkpoint

    @property
    def at_the_end(self) -> float:
        """Seconds from the last step to the end of the process: each task once, and the report."""
        return self.each_once + self.writing() + self.closing

    @property
    def closing(self) -> float:
        """Seconds of the report at the end, with its samples or its questions."""
        besides = CLOSING_SECONDS * self.slowdown()
        if self.report is not None:
            questions = self.questions_in(self.most_closing)
            return besides + self.report.seconds(questions, self._token, self._generated)
        samples = self.sample * CLOSING_SAMPLES * CLOSING_SAMPLE_TOKENS / SAMPLE_TOKENS
        return min(self.most_closing, besides + samples)

    def questions_in(self, seconds: float) -> int:
        """Return how many held-out questions the report at the end asks in so many seconds, of a tuned run."""
        assert self.report is not None
        besides = CLOSING_SECONDS * self.slowdown()
        return self.report.fitting(seconds - besides, self._token, self._generated)

    @property
    def _token(self) -> float:
        """Seconds to read a token."""
        return self.evaluation / self.evaluated_tokens

    @property
    def _generated(self) -> float:
        """Seconds to generate a token after another."""
        return self.sample / SAMPLE_TOKENS


def _reference_tokens(plan: Plan) -> int:
    """Estimate the tokens of the reference text, which each evaluation scores as well."""
    text = reference_text(plan.settings.train.reference)
    if text is None:
        return 0
    size = sum(len(document.encode()) for document in text.documents)
    train = plan.data.train
    return size * train.num_tokens // max(1, train.source_bytes)
