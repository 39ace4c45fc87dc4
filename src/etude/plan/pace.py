"""Keep to the requested time: revise the number of steps while the machine turns out faster or slower than measured.

The measurement before training takes a few seconds, on a machine that may soon become hot or shared. So a run with a
time budget measures its speed while it trains, and revises its number of steps to fit the time. The learning rate
completes its schedule in the revised number of steps (:func:`etude.train.schedule.planned_step`). The run's log records
each revision.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from etude.plan.task_costs import LOADING_SECONDS, TaskCosts

WORTH_REVISING, URGENT = 0.01, 0.1
"""Relative changes of the number of steps: below the first nothing is revised, above the second it is at once."""
SELDOM = 24
"""Most revisions in a run, besides urgent ones (approximately)."""
WINDOW = 8
"""The time of a step is averaged over this fraction of the run's steps, 1 / WINDOW, the most recent ones."""
MOST_SILENCE, SILENCE = 5.0, 0.01
"""Interval between clock checks: most seconds, and fraction of the remaining time."""


@dataclass(frozen=True)
class Deadline:
    """The end of a run with a time budget, and the time of its tasks besides steps."""

    ends_at: float  # of time.monotonic
    costs: TaskCosts  # estimated, then measured while the run trains
    tasks_between: Callable[[int, int], float]
    """Returns the seconds of evaluations, samples and checkpoints between two steps, by their current costs."""
    most_steps: int
    """Limit by the text: more steps would read it too often, however much time is left."""
    compile_until: float = math.inf
    """Time limit of compilation, of time.monotonic."""

    @property
    def silence(self) -> float:
        """Seconds between clock checks: a short run checks more often."""
        return max(0.1, min(MOST_SILENCE, SILENCE * (self.ends_at - time.monotonic())))

    @property
    def samples_until(self) -> float:
        """Time limit of the samples at the end, of time.monotonic; -inf without time to load the model."""
        loaded = time.monotonic() + LOADING_SECONDS * self.costs.slowdown()
        return self.ends_at if loaded < self.ends_at else -math.inf

    @property
    def questions(self) -> int | None:
        """Held-out questions that fit the time that is left, after the training; None for a run that asks none."""
        return None if self.costs.report is None else self.costs.questions_in(self.ends_at - time.monotonic())


@dataclass
class Pace:
    """Revise the number of steps of a run to meet its deadline."""

    deadline: Deadline
    _began: tuple[int, float] | None = None  # after which step, and when
    _in_steps: float = 0.0  # seconds of steps since then
    _timed: deque[tuple[int, float]] = field(default_factory=deque)  # (step, value of _in_steps)
    _revised_at: int = 0

    def __call__(self, step: int, num_steps: int, seconds: float) -> int | None:
        """Return a better number of steps than ``num_steps``, None if none is needed.

        ``seconds`` is the time of the steps since the last call.
        """
        now = time.monotonic()
        if self._began is None:  # the first steps also allocate memory: do not measure them
            self._began = (step, now)
            self._timed.append((step, 0.0))
            late = now + self.deadline.costs.at_the_end >= self.deadline.ends_at
            return step + 1 if late and num_steps > step + 1 else None
        self._in_steps += seconds
        self._timed.append((step, self._in_steps))
        while len(self._timed) > 2 and self._timed[1][0] < step - num_steps // WINDOW:
            self._timed.popleft()
        better = max(step + 1, min(self._fitting(step, num_steps, now), self.deadline.most_steps))
        change = abs(better - num_steps) / num_steps
        soon = step - self._revised_at < num_steps // SELDOM
        if change <= WORTH_REVISING or (soon and change <= URGENT):
            return None
        self._revised_at = step
        return better

    def _fitting(self, step: int, num_steps: int, now: float) -> int:
        """Return the total number of steps that fit the time, at the speed of the most recent ones."""
        assert self._began is not None
        first, began = self._began
        (since, then), deadline = self._timed[0], self.deadline
        expected = deadline.tasks_between(first, step)
        # Ratio of actual to expected time between steps so far, assumed to hold for the rest.
        slower = (now - began - self._in_steps) / expected if expected > 0 else 1.0
        left = deadline.ends_at - now - deadline.costs.at_the_end
        own = (self._in_steps - then) / (step - since)
        share_of_tasks = deadline.tasks_between(step, num_steps) / (num_steps - step)
        return step + int(left / max(1e-9, own + slower * share_of_tasks))
