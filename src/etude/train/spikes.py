"""Detect spikes of the training loss, by comparing each loss with those of the steps before it.

A step of a tuning may train samples of its base beside the answers (``data.replay``). Their loss is another than that
of answers, and their share of the trained tokens changes from step to step. Losses are compared as they would be with
equal shares: the loss of a step is linear in its share, and the slope is that of the steps before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from statistics import median

import numpy as np

from etude.config import Resolved
from etude.data.conversations.conversation import is_sampled
from etude.data.prepared_data import PreparedData
from etude.data.tokens.packing import PackedLoader

WINDOW, FEWEST = 64, 16
"""Most and fewest earlier steps that a loss is compared with."""
DEVIATIONS, SHARE = 8.0, 0.05
"""A spike exceeds the median by this many standard deviations, and by this fraction of the median."""
_NORMAL = 1.4826
"""Ratio of standard deviation to median absolute deviation in a normal distribution."""
Shares = Callable[[int], float]
"""Returns the share of a step's trained tokens that its base model wrote."""


class LossWatch:
    """Find losses that are spikes.

    Median and median absolute deviation (Hampel 1974) instead of mean and variance: spikes hardly change them. A new
    level of the loss counts as usual after half a window.

    Args:
        before: (step, loss) of the newest earlier steps.
        shares: of samples of the base; None: a run without such samples.
    """

    def __init__(self, before: Iterable[tuple[int, float]] = (), shares: Shares | None = None) -> None:
        self._share_of = shares or (lambda step: 0.0)
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._shares: deque[float] = deque(maxlen=WINDOW)
        for step, loss in before:
            self._add(loss, self._share_of(step))

    def spike(self, step: int, loss: float) -> float | None:
        """Add the loss of the next step. Returns the usual loss, the median of those before, if it is a spike.

        None for another loss, and for one whose share of samples is outside the range of those before.
        """
        share = self._share_of(step)
        slope = slope_at(share, self._losses, self._shares)
        before = [own - (slope or 0.0) * (of_own - share) for own, of_own in self._pairs()]
        self._add(loss, share)
        if len(before) < FEWEST or slope is None:
            return None
        usual = median(before)
        deviation = _NORMAL * median(abs(value - usual) for value in before)
        return usual if loss > usual + max(DEVIATIONS * deviation, SHARE * usual) else None

    def _pairs(self) -> Iterable[tuple[float, float]]:
        return zip(self._losses, self._shares, strict=True)

    def _add(self, loss: float, share: float) -> None:
        self._losses.append(loss)
        self._shares.append(share)


def slope_at(share: float, losses: Sequence[float], shares: Sequence[float]) -> float | None:
    """Return by how much the loss rises with the share, from earlier steps; None for a share outside their range.

    It is the weighted median of the slopes between all pairs of steps, each with the difference of its shares as its
    weight (Theil 1950, Sen 1968, Jaeckel 1972): spikes hardly change it.
    """
    low, high = min(shares, default=share), max(shares, default=share)
    if not low <= share <= high:
        return None
    if low == high:
        return 0.0
    first, second = np.triu_indices(len(shares), 1)
    runs = np.subtract.outer(np.array(shares), np.array(shares))[first, second]
    rises = np.subtract.outer(np.array(losses), np.array(losses))[first, second]
    slopes, weights = rises[runs != 0] / runs[runs != 0], np.abs(runs[runs != 0])
    order = np.argsort(slopes)
    summed = np.cumsum(weights[order])
    return float(slopes[order][np.searchsorted(summed, summed[-1] / 2)])


def at_equal_shares(losses: Sequence[float], shares: Sequence[float]) -> list[float]:
    """Return losses as they would be with the median share; NaN where the share is outside the range of those before.

    The first :data:`FEWEST` losses get the slope of all of them.
    """
    middle, moved = median(shares), []
    for at, (loss, share) in enumerate(zip(losses, shares, strict=True)):
        window = slice(max(0, at - WINDOW), max(at, FEWEST))
        slope = slope_at(share, losses[window], shares[window])
        moved.append(np.nan if slope is None else loss + slope * (middle - share))
    return moved


def sampled_shares(data: PreparedData, settings: Resolved) -> Shares | None:
    """Return the share of samples of the base in each step of a run; None for a run without such samples."""
    if not settings.data.replay or data.train.examples is None:
        return None
    train = settings.train
    loader = PackedLoader(data.train, train.context, train.batch_rows, settings.run.seed)
    origins = (data.corpus.name("train", number)[1] for number in range(data.train.num_documents))
    share = loader.share_of(np.array([is_sampled(origin) for origin in origins], bool))
    return lambda step: share(step - 1)  # the loader counts steps from 0
