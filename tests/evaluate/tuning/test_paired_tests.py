"""The paired tests equal binomial and enumerated references, and keep their level."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.evaluate.tuning.paired_tests import (
    LEVEL,
    permutation_test,
    ratio,
    sign_test,
    sums_of_groups,
    t_quantile,
)


def binomial_tail(wins: int, losses: int) -> float:
    """P(at least so many wins in fair tosses)."""
    count = wins + losses
    return sum(math.comb(count, k) for k in range(wins, count + 1)) / 2**count


@pytest.mark.parametrize(
    ("wins", "losses", "ties"), [(0, 0, 3), (6, 0, 0), (10, 2, 12), (2, 10, 1), (40, 25, 0)]
)
def test_of_single_questions_it_is_mcnemars_exact_test(wins: int, losses: int, ties: int) -> None:
    p = sign_test([1] * wins + [-1] * losses + [0] * ties)
    assert p == pytest.approx(binomial_tail(wins, losses), rel=1e-12)


@given(st.lists(st.integers(-4, 4), max_size=9))
def test_of_groups_it_is_what_enumeration_gives(differences: list[int]) -> None:
    sums = [
        sum(sign * value for sign, value in zip(signs, differences, strict=True))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    expected = np.mean([value >= sum(differences) for value in sums])
    assert sign_test(differences) == pytest.approx(expected, rel=1e-12)
    assert permutation_test(np.array(differences, float)) == pytest.approx(expected, rel=1e-12)


def test_the_drawn_permutations_agree_with_the_exact_ones() -> None:
    differences = np.array([1] * 20 + [-1] * 9)
    exact = binomial_tail(20, 9)
    assert permutation_test(differences.astype(float)) == pytest.approx(
        exact, abs=4 * math.sqrt(exact / 20_000)
    )


def test_the_level_is_kept_for_differences_with_heavy_tails() -> None:
    random = np.random.default_rng(5)
    for count in (6, 12, 24):
        p_values = [permutation_test(random.standard_t(2, count)) for _ in range(400)]
        share = np.mean(np.array(p_values) <= LEVEL)
        assert share <= LEVEL + 3 * math.sqrt(LEVEL / 400)


def test_questions_of_one_group_count_once() -> None:
    assert sums_of_groups([1, 1, -1, 1], ["a", "a", "b", "a"]).tolist() == [3, -1]
    assert sign_test([8]) == 0.5, "eight wordings of one fact prove no more than one"


def test_a_ratio_is_that_of_the_sums_with_students_interval() -> None:
    estimate = ratio([2.0, 6.0, 4.0], [1.0, 2.0, 1.0], ["a", "b", "c"])
    assert estimate.value == 3.0
    residuals = np.array([2 - 3 * 1, 6 - 3 * 2, 4 - 3 * 1])
    error = math.sqrt((residuals**2).sum() * 3 / 2) / 4
    assert estimate.standard_error == pytest.approx(error)
    assert estimate.interval.high == pytest.approx(3 + 4.303 * error)
    assert math.isinf(ratio([2.0], [1.0], ["a"]).interval.high)


@pytest.mark.parametrize(
    ("degrees", "known"), [(1, 12.706), (10, 2.228), (30, 2.042), (31, 2.0395), (60, 2.0003), (120, 1.9799)]
)
def test_students_quantiles_are_those_of_the_tables(degrees: int, known: float) -> None:
    assert t_quantile(degrees) == pytest.approx(known, abs=6e-4)
