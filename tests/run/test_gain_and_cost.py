"""The sum of gain and cost: in bits per byte since the first evaluation, and when it has stalled."""

from __future__ import annotations

import math

import pytest

from etude.run.events import EvalEvent, ReferenceEvent
from etude.run.gain_and_cost import Balance, balances_of, has_stalled, least


def evaluated(step: int, bits: float) -> EvalEvent:
    return EvalEvent(step, 0, 0.0, 1.0, bits, 100)


def scored(step: int, bits: float, digest: str = "d") -> ReferenceEvent:
    return ReferenceEvent(step, 0, 0.0, 1.0, bits, 100, digest)


def totals(*values: float) -> list[Balance]:
    return [Balance(10 * number, value, 0.0) for number, value in enumerate(values)]


def test_both_are_changes_since_the_first_step_that_scored_both() -> None:
    evals = [evaluated(0, 3.0), evaluated(5, 2.5), evaluated(10, 2.0), evaluated(15, 1.0)]
    references = [scored(0, 9.0, "other"), scored(5, 1.0), scored(10, 1.2), scored(15, 4.0, "other")]
    balances = balances_of(evals, references, "d")
    assert [balance.step for balance in balances] == [5, 10]
    assert balances[0] == Balance(5, 0.0, 0.0)
    assert (balances[1].held_out, balances[1].reference) == (pytest.approx(-0.5), pytest.approx(0.2))
    assert balances[1].total == pytest.approx(-0.3)
    assert [balance.step for balance in balances_of(evals, references)] == [0, 5, 10, 15]
    assert balances_of(evals, []) == []


def test_it_stalls_after_so_many_evaluations_without_a_lower_sum() -> None:
    falling = totals(0.0, -0.1, -0.3, -0.2, -0.3)
    assert least(falling) == falling[2]  # of equal sums, the earliest
    assert not has_stalled(falling[:4], 2)
    assert has_stalled(falling, 2)
    assert not has_stalled(falling, 3)
    assert has_stalled(totals(0.0, 0.1), 1)
    assert least([]) is None
    assert not has_stalled([], 1)


def test_a_number_that_is_not_finite_is_never_the_best() -> None:
    broken = totals(0.0, math.nan, -math.inf, math.inf)
    assert least(broken) == broken[0]
    assert has_stalled(broken, 3)
