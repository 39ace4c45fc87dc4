"""The rules of scoring: ties are one half, every score has an interval, nothing is compared with itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TIE = 1e-6
"""Two log-probabilities that differ by less than this share of themselves (or than this, in nats) are equal: they
come from float32 logits."""

Z = 1.959963984540054
"""The normal quantile of a two-sided 95 % interval."""
ABOVE_BY_LUCK = 0.025
"""How often such an interval lies wholly above what is true."""


@dataclass(frozen=True, slots=True)
class Interval:
    """95 %, both ends included."""

    low: float
    high: float

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its standard error and interval, of `count` independent groups."""

    value: float
    standard_error: float
    interval: Interval
    count: int


def credit(scores: NDArray[np.float64], right: int) -> float:
    """1 where the right candidate has the highest score alone, 1/k where it is one of k tied, else 0.

    Taking the first of the highest instead (argmax) counts ties as right wherever the right one stands first.
    """
    highest = float(scores.max())
    tied = scores >= highest - TIE * max(1.0, abs(highest))
    return float(tied[right] / tied.sum())


def log_share(scores: NDArray[np.float64], right: int) -> float:
    """Log of the right candidate's share of the probability of all candidates, in nats; -ln n at chance."""
    highest = scores.max()
    return float(scores[right] - highest - math.log(np.exp(scores - highest).sum()))


def brier(scores: NDArray[np.float64], right: int) -> float:
    """Squared distance of the shares from the truth (Brier 1950): 0 is perfect, 1 - 1/n is chance, 2 the worst."""
    shares = np.exp(scores - scores.max())
    shares /= shares.sum()
    shares[right] -= 1.0
    return float((shares**2).sum())


def wilson(successes: float, count: int) -> Interval:
    """The score interval of a proportion (Wilson 1927). Half successes (ties) are allowed.

    Raises ValueError for a count of zero.
    """
    if count < 1:
        raise ValueError("an interval needs at least one item")
    share = successes / count
    spread = Z**2 / count
    middle = (share + spread / 2) / (1 + spread)
    half = Z / (1 + spread) * math.sqrt(share * (1 - share) / count + spread / (4 * count))
    return Interval(max(0.0, middle - half), min(1.0, middle + half))


def proportion(credits: Sequence[float], groups: Sequence[str] | None = None) -> Estimate:
    """A share of right answers. Items of one (non-empty) group count together as one: the interval is then Wilson's
    of as many answers as there are groups."""
    together, count = _by_group(credits, groups)
    value = float(np.mean(credits))
    interval = wilson(value * count, count)
    return Estimate(value, _standard_error(together), interval, count)


def mean_of_shares(shares: Sequence[Estimate]) -> Estimate:
    """The mean over the shares of several sets of items, each of which counts alike.

    The interval is Wilson's, of as many items as would have the same error were they all of one set: all of them where
    the sets are equally large.
    """
    value = float(np.mean([share.value for share in shares]))
    count = int(len(shares) ** 2 / sum(1 / share.count for share in shares) + 1e-9)
    error = math.hypot(*(share.standard_error for share in shares)) / len(shares)
    return Estimate(value, error, wilson(value * count, count), count)


def mean(values: Sequence[float], groups: Sequence[str] | None = None) -> Estimate:
    """A mean and its normal interval; items of one (non-empty) group count together as one."""
    together, count = _by_group(values, groups)
    value, error = float(np.mean(values)), _standard_error(together)
    return Estimate(value, error, Interval(value - Z * error, value + Z * error), count)


def _by_group(values: Sequence[float], groups: Sequence[str] | None) -> tuple[NDArray[np.float64], int]:
    """For each independent group the sum of its deviations from the mean, scaled: their mean square is a variance."""
    found = np.asarray(values, np.float64)
    if not len(found):
        raise ValueError("an interval needs at least one item")
    names = list(groups) if groups is not None else [""] * len(found)
    keys = [name or f"\0{at}" for at, name in enumerate(names)]  # an item without a group stands alone
    index = {key: at for at, key in enumerate(dict.fromkeys(keys))}
    sums = np.zeros(len(index))
    np.add.at(sums, [index[key] for key in keys], found - found.mean())
    return sums * len(index) / len(found), len(index)


def _standard_error(deviations: NDArray[np.float64]) -> float:
    """Of a mean, from the deviations of independent groups (the ratio estimator with groups as clusters)."""
    count = len(deviations)
    if count < 2:
        return math.inf
    return float(math.sqrt((deviations**2).sum() / (count - 1) / count))
