"""Keeping the time that was asked for: a run grows longer or shorter with what the machine really does.

What was measured beforehand is a few seconds of a machine that may soon be warm, or shared. So while it trains, a run
looks at its own clock, and takes as many steps as will fit. The learning rate goes through the rest of its plan in that
many steps (:func:`etude.train.schedule.planned_step`), and each revision is part of the run's record.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field

WORTH_REVISING = 0.01
"""Relative change of the number of steps: less is left as it is."""


@dataclass
class Pace:
    """Says how many steps a run should have to take its last one at ``ends_by`` (of ``time.monotonic``).

    Evaluations, samples and checkpoints come every ``every`` steps: only whole rounds of them tell how fast a run is.
    ``most`` is how many steps the text is good for, whatever the time.
    """

    ends_by: float
    every: int
    most: int
    _passed: deque[tuple[int, float]] = field(default_factory=deque)
    _revised_at: int = 0

    def __call__(self, step: int, num_steps: int) -> int | None:
        """A better number of steps than ``num_steps``; None while this one will do."""
        now = time.monotonic()
        self._passed.append((step, now))
        while len(self._passed) > 1 and self._passed[1][0] <= step - 2 * self.every:
            self._passed.popleft()
        if now >= self.ends_by:
            return step + 1 if num_steps > step + 1 else None
        since, then = self._passed[0]
        # The first steps are no measure: what is done once, and what is done often at first, falls among them.
        told = since >= self.every // 2 and step - since >= self.every
        if not told or step - self._revised_at < self.every // 2:
            return None
        fitting = step + int((self.ends_by - now) / (now - then) * (step - since))
        better = max(step + 1, min(fitting, self.most))
        if abs(better - num_steps) <= WORTH_REVISING * num_steps:
            return None
        self._revised_at = step
        return better
