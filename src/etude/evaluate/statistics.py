"""The rules of scoring: ties are one half, and every score has an interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TIE = 1e-6
"""Two log-probabilities are equal if they differ by less than this share of themselves, or than this many nats: they
come from float32 logits."""

Z = 1.959963984540054
"""The normal quantile of a two-sided 95 % interval."""
ABOVE_BY_LUCK = 0.025
"""Probability that such an interval lies wholly above the true value."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % interval, both ends included."""

    low: float
    high: float

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its standard error and interval, over `count` independent groups."""

    value: float
    standard_error: float
    interval: Interval
    count: int


def credit(scores: NDArray[np.float64], right: int) -> float:
    """Return 1 if the right candidate alone has the highest score, 1/k if it is one of k tied, else 0.

    Taking the first of the highest (argmax) would count ties as right whenever the right candidate comes first.
    """
    highest = float(scores.max())
    tied = scores >= highest - TIE * max(1.0, abs(highest))
    return float(tied[right] / tied.sum())


def log_share(scores: NDArray[np.float64], right: int) -> float:
    """Return the log of the right candidate's share of the probability of all candidates, in nats; -ln n at chance."""
    highest = scores.max()
    return float(scores[right] - highest - math.log(np.exp(scores - highest).sum()))


def brier(scores: NDArray[np.float64], right: int) -> float:
    """Return the squared distance of the shares from the truth (Brier 1950): 0 is perfect, 1 - 1/n chance, 2 worst."""
    shares = np.exp(scores - scores.max())
    shares /= shares.sum()
    shares[right] -= 1.0
    return float((shares**2).sum())


def wilson(successes: float, count: int) -> Interval:
    """Return the score interval of a proportion (Wilson 1927). Half successes (ties) are allowed.

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
    """Estimate a share of right answers.

    Items of one (non-empty) group count as one: the interval is Wilson's, for as many answers as there are groups.
    """
    together, count = _by_group(credits, groups)
    value = float(np.mean(credits))
    interval = wilson(value * count, count)
    return Estimate(value, _standard_error(together), interval, count)


def mean_of_shares(shares: Sequence[Estimate]) -> Estimate:
    """Average the shares of several sets of items, with equal weights.

    The interval is Wilson's, for the number of items that would have the same error in a single set: all of them if the
    sets are equally large.
    """
    value = float(np.mean([share.value for share in shares]))
    count = int(len(shares) ** 2 / sum(1 / share.count for share in shares) + 1e-9)
    error = math.hypot(*(share.standard_error for share in shares)) / len(shares)
    return Estimate(value, error, wilson(value * count, count), count)


def mean(values: Sequence[float], groups: Sequence[str] | None = None) -> Estimate:
    """Estimate a mean with its normal interval; items of one (non-empty) group count as one."""
    together, count = _by_group(values, groups)
    value, error = float(np.mean(values)), _standard_error(together)
    return Estimate(value, error, Interval(value - Z * error, value + Z * error), count)


def mean_difference(differences: Sequence[float], groups: Sequence[str] | None = None) -> Estimate:
    """Estimate the mean of paired differences between -1 and 1, such as of two models' credits on the same items.

    The interval is that of Agresti and Min (2005): as if two more groups were observed, half of one at each extreme and
    one without a difference. So it has a width even where all observed differences are equal. Items of one (non-empty)
    group count as one.
    """
    deviations, count = _by_group(differences, groups)
    value = float(np.mean(np.asarray(differences, np.float64)))
    # The ratio estimator, linearised: groups may differ in size, and their mean is that of all differences.
    sums = deviations + value
    middle = float(sums.sum()) / (count + 2)
    variance = (float((sums**2).sum()) + 1) / (count + 2) - middle**2
    half = Z * math.sqrt(max(0.0, variance) / (count + 2))
    low, high = max(-1.0, middle - half), min(1.0, middle + half)
    return Estimate(value, _standard_error(deviations), Interval(min(low, value), max(high, value)), count)


def _by_group(values: Sequence[float], groups: Sequence[str] | None) -> tuple[NDArray[np.float64], int]:
    """Return each independent group's sum of deviations from the mean, scaled so that the mean square is a variance."""
    numbers = np.asarray(values, np.float64)
    if not len(numbers):
        raise ValueError("an interval needs at least one item")
    names = list(groups) if groups is not None else [""] * len(numbers)
    keys = [name or f"\0{at}" for at, name in enumerate(names)]  # an item without a group is its own group
    index = {key: at for at, key in enumerate(dict.fromkeys(keys))}
    sums = np.zeros(len(index))
    np.add.at(sums, [index[key] for key in keys], numbers - numbers.mean())
    return sums * len(index) / len(numbers), len(index)


def _standard_error(deviations: NDArray[np.float64]) -> float:
    """Return the standard error of a mean from deviations of independent groups (ratio estimator with clusters)."""
    count = len(deviations)
    if count < 2:
        return math.inf
    return float(math.sqrt((deviations**2).sum() / (count - 1) / count))
