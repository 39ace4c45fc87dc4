"""Keep to the requested time: change the number of steps as the machine turns out faster or slower than measured.

What was measured beforehand is a few seconds of a machine that may soon be warm, or shared. So while it trains, a run
looks at its own clock, and takes as many steps as will fit. The learning rate goes through the rest of its plan in that
many steps (:func:`etude.train.schedule.planned_step`), and each revision is part of the run's record.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from etude.plan.task_costs import LOADING_SECONDS, TaskCosts

WORTH_REVISING, URGENT = 0.01, 0.1
"""Relative changes of the number of steps: less than the first is left as it is, more than the second does not wait."""
SELDOM = 24
"""Revisions in a run, about, besides urgent ones."""
WINDOW = 8
"""Of the run's steps, the last such part tells how long a step takes."""


MOST_SILENCE, SILENCE = 5.0, 0.01
"""Seconds between looks at the clock, at most, and as a part of the time that the run has."""


@dataclass(frozen=True)
class Deadline:
    """When a run is to be over, and what it does besides steps."""

    over_at: float  # of time.monotonic
    costs: TaskCosts  # as foreseen, and then as measured while the run does them
    tasks_between: Callable[[int, int], float]
    """Seconds of evaluations, samples and checkpoints after one step and before another, by what they cost now."""
    most_steps: int
    """That the text is good for, whatever the time."""
    compile_until: float = math.inf
    """When compiling has to be done, of time.monotonic."""

    @property
    def silence(self) -> float:
        """Seconds between looks at the clock: a short time is looked at more often."""
        return max(0.1, min(MOST_SILENCE, SILENCE * (self.over_at - time.monotonic())))

    @property
    def samples_until(self) -> float:
        """Until when the samples at the end may be written, of time.monotonic; long ago if there is no time to load."""
        loaded = time.monotonic() + LOADING_SECONDS * self.costs.slowdown()
        return self.over_at if loaded < self.over_at else -math.inf


@dataclass
class Pace:
    """Says how many steps a run should have."""

    deadline: Deadline
    _began: tuple[int, float] | None = None  # after which step, and when
    _in_steps: float = 0.0  # seconds since then
    _timed: deque[tuple[int, float]] = field(default_factory=deque)  # a step, and _in_steps by then
    _revised_at: int = 0

    def __call__(self, step: int, num_steps: int, seconds: float) -> int | None:
        """A better number of steps than ``num_steps``; None while this one will do.

        ``seconds`` were spent in the steps since the last call.
        """
        now = time.monotonic()
        if self._began is None:  # the first steps also find their memory, and are no measure
            self._began = (step, now)
            self._timed.append((step, 0.0))
            late = now + self.deadline.costs.at_the_end >= self.deadline.over_at
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
        """Steps in all that there is time for, at the speed of the last ones."""
        assert self._began is not None
        first, began = self._began
        (since, then), deadline = self._timed[0], self.deadline
        foreseen = deadline.tasks_between(first, step)
        # What is between steps may take longer than it was measured to take, or shorter, as it did so far.
        slower = (now - began - self._in_steps) / foreseen if foreseen > 0 else 1.0
        left = deadline.over_at - now - deadline.costs.at_the_end
        own = (self._in_steps - then) / (step - since)
        share_of_tasks = deadline.tasks_between(step, num_steps) / (num_steps - step)
        return step + int(left / max(1e-9, own + slower * share_of_tasks))
