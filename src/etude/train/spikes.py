"""Detect spikes of the training loss, by comparing each loss with those of the steps before it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from statistics import median

WINDOW, FEWEST = 64, 16
"""Most and fewest earlier steps that a loss is compared with."""
DEVIATIONS, SHARE = 8.0, 0.05
"""A spike exceeds the median by this many standard deviations, and by this fraction of the median."""
_NORMAL = 1.4826
"""Ratio of standard deviation to median absolute deviation in a normal distribution."""


class LossWatch:
    """Find losses that are spikes.

    Median and median absolute deviation (Hampel 1974) instead of mean and variance: spikes hardly change them. A new
    level of the loss counts as usual after half a window.
    """

    def __init__(self, losses: Iterable[float] = ()) -> None:
        self._losses = deque(losses, maxlen=WINDOW)

    def spike(self, loss: float) -> float | None:
        """Add the loss of the next step. Returns the median of those before it if the loss is a spike, else None."""
        before = sorted(self._losses)
        self._losses.append(loss)
        if len(before) < FEWEST:
            return None
        usual = median(before)
        deviation = _NORMAL * median(abs(value - usual) for value in before)
        return usual if loss > usual + max(DEVIATIONS * deviation, SHARE * usual) else None
