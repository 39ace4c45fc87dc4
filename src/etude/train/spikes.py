"""Losses that jump: each is compared with the steps before it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from statistics import median

WINDOW, FEWEST = 64, 16
"""Steps that a loss is compared with, at most and at least."""
DEVIATIONS, SHARE = 8.0, 0.05
"""A spike is this many standard deviations above their median, and this share of it."""
_NORMAL = 1.4826
"""The standard deviation of a normal distribution over its median absolute deviation."""


class LossWatch:
    """Says which losses are spikes.

    Median and median absolute deviation (Hampel 1974) rather than mean and variance: the spikes themselves hardly move
    them. A level that stays becomes the usual one within half a window.
    """

    def __init__(self, losses: Iterable[float] = ()) -> None:
        self._losses = deque(losses, maxlen=WINDOW)

    def spike(self, loss: float) -> float | None:
        """Take the next step's loss; the median of those before it if it is a spike."""
        before = sorted(self._losses)
        self._losses.append(loss)
        if len(before) < FEWEST:
            return None
        usual = median(before)
        deviation = _NORMAL * median(abs(value - usual) for value in before)
        return usual if loss > usual + max(DEVIATIONS * deviation, SHARE * usual) else None
