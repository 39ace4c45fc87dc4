"""Tests of paired differences between two systems on the same questions, and means with small-sample intervals.

The null hypothesis of both tests is that the two systems could swap names in any group of questions, so the signs of
the groups' differences are tossed coins. All p-values are one-sided and valid: at any level a, p <= a has at most
probability a under the null, however many questions there are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from etude.evaluate.clustered import RatioSums
from etude.evaluate.statistics import Estimate, Interval, Z

LEVEL = 0.025
"""The one-sided level of every claim: the share of tunings without an effect for which it is made."""
FEWEST_GROUPS = 6
"""With fewer groups no p-value can reach the level: the smallest is 2^-groups."""
_EXACT_GROUPS = 12
_DRAWS = 20_000
_SEED = 20_261_130
_T = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
"""The 0.975 quantiles of Student's t for 1 to 30 degrees of freedom."""

Floats = NDArray[np.float64]


def sums_of_groups(values: Sequence[float], groups: Sequence[str]) -> Floats:
    """Return the sum of the values of each group, in the order of first appearance."""
    index = {group: at for at, group in enumerate(dict.fromkeys(groups))}
    sums = np.zeros(len(index))
    np.add.at(sums, [index[group] for group in groups], np.asarray(values, np.float64))
    return sums


def sign_test(differences: Sequence[int]) -> float:
    """Return P(sum of the differences with tossed signs >= their sum), exactly, for whole numbers.

    With differences of -1, 0 and 1 it is the exact McNemar test, a binomial sign test of the pairs that disagree.
    """
    sizes = [abs(int(value)) for value in differences]
    total = sum(sizes)
    chances = np.zeros(2 * total + 1)  # of each sum, from -total on
    chances[total] = 1.0
    for size in sizes:
        if size:
            chances = (np.roll(chances, size) + np.roll(chances, -size)) / 2
    return min(1.0, float(chances[total + sum(map(int, differences)) :].sum()))


def permutation_test(differences: Floats) -> float:
    """Return P(sum of the differences with tossed signs >= their sum).

    Exact for at most 12 groups; otherwise estimated from 20,000 fixed draws, the observed signs being one of them
    (Phipson and Smyth 2010).
    """
    observed = float(differences.sum())
    tolerance = 1e-12 * float(np.abs(differences).sum())
    if len(differences) <= _EXACT_GROUPS:
        return float((_all_signs(len(differences)) @ differences >= observed - tolerance).mean())
    beyond = int((_drawn_signs(len(differences)) @ differences >= observed - tolerance).sum())
    return (1 + beyond) / (1 + _DRAWS)


@lru_cache(4)
def _all_signs(count: int) -> Floats:
    numbers = np.arange(2**count)
    return np.asarray(1.0 - 2.0 * ((numbers[:, None] >> np.arange(count)) & 1))


@lru_cache(2)
def _drawn_signs(count: int) -> Floats:
    return np.random.default_rng(_SEED).choice(np.array([-1.0, 1.0]), (_DRAWS, count))


def ratio(totals: Sequence[float], counts: Sequence[float], groups: Sequence[str]) -> Estimate:
    """Estimate sum(totals) / sum(counts), such as nats per token, with groups as clusters.

    The interval uses Student's t for the number of groups: there may be few.
    """
    sums = RatioSums(1)
    in_groups = zip(sums_of_groups(counts, groups), sums_of_groups(totals, groups), strict=True)
    for count, total in in_groups:
        sums.add(np.array([count]), np.array([total]))
    (estimate,) = sums.estimates()
    if estimate is None:
        raise ValueError("an estimate needs at least one token")
    half = t_quantile(estimate.count - 1) * estimate.standard_error if estimate.count > 1 else math.inf
    interval = Interval(estimate.value - half, estimate.value + half)
    return Estimate(estimate.value, estimate.standard_error, interval, estimate.count)


def t_quantile(degrees: int) -> float:
    """Return the 0.975 quantile of Student's t; beyond 30 degrees by the expansion of Cornish and Fisher."""
    if degrees <= len(_T):
        return _T[degrees - 1]
    first = (Z**3 + Z) / (4 * degrees)
    second = (5 * Z**5 + 16 * Z**3 + 3 * Z) / (96 * degrees**2)
    return Z + first + second
