from __future__ import annotations

from itertools import pairwise
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.config import TrainSettings
from etude.train.schedule import last_step, lr_factor, planned_step

SCHEDULES: list[Literal["linear", "cosine", "wsd"]] = ["linear", "cosine", "wsd"]


@given(
    schedule=st.sampled_from(SCHEDULES),
    steps=st.integers(1, 400),
    warmup=st.floats(0, 1),
    decay=st.floats(0.01, 1),
    floor=st.floats(0, 1),
)
def test_rises_then_never_rises_again(
    schedule: Literal["linear", "cosine", "wsd"], steps: int, warmup: float, decay: float, floor: float
) -> None:
    settings = TrainSettings(
        optimizer="muon",
        steps=steps,
        schedule=schedule,
        warmup_fraction=warmup,
        decay_fraction=decay,
        min_lr_ratio=floor,
    )
    factors = [lr_factor(step, settings) for step in range(1, steps + 1)]
    assert all(0 < factor <= 1 for factor in factors)
    top = factors.index(max(factors))
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    assert top <= round(warmup * steps)


def test_linear_falls_in_equal_steps_to_its_floor() -> None:
    settings = TrainSettings(optimizer="muon", steps=100, warmup_fraction=0.1, min_lr_ratio=0.1)
    factors = [lr_factor(step, settings) for step in range(10, 101)]
    drops = [a - b for a, b in pairwise(factors)]
    assert max(drops) - min(drops) < 1e-12
    assert factors[0] == 1.0
    assert factors[-1] == pytest.approx(0.1 + 0.9 / 91)


def test_wsd_is_flat_until_the_decay() -> None:
    settings = TrainSettings(
        optimizer="muon", steps=100, schedule="wsd", warmup_fraction=0.1, decay_fraction=0.4
    )
    assert [lr_factor(step, settings) for step in range(10, 61)] == [1.0] * 51
    assert lr_factor(61, settings) < 1.0


def test_cosine_is_half_way_down_in_the_middle() -> None:
    settings = TrainSettings(optimizer="muon", steps=99, schedule="cosine", warmup_fraction=0.0)
    assert lr_factor(50, settings) == pytest.approx(0.5)


@given(
    num_steps=st.integers(2, 500),
    changes=st.lists(st.tuples(st.floats(0.01, 0.99), st.floats(0.1, 3)), max_size=4),
)
def test_a_run_of_revised_length_goes_through_the_whole_plan_without_a_jump(
    num_steps: int, changes: list[tuple[float, float]]
) -> None:
    revisions: tuple[tuple[int, int], ...] = ()
    start, end = 0, num_steps
    for share, factor in changes:
        start += max(1, round(share * (end - start)))
        if start >= end:
            break
        end = start + max(1, round(factor * (end - start)))
        revisions = (*revisions, (start, end))
    assert last_step(num_steps, revisions) == end
    places = [planned_step(step, num_steps, revisions) for step in range(end + 1)]
    assert places[0] == 0
    assert places[-1] == pytest.approx(num_steps)
    # Between two revisions equal steps; at a revision only the size of the steps changes.
    ends = [0, *(at for at, _ in revisions), end]
    for first, last in pairwise(ends):
        moves = [b - a for a, b in pairwise(places[first : last + 1])]
        assert min(moves) > 0
        assert max(moves) == pytest.approx(min(moves), abs=1e-9)
    # What is past a step does not move it: the steps before a revision are as they were without it.
    for count in range(len(revisions)):
        before = [planned_step(step, num_steps, revisions[:count]) for step in range(revisions[count][0] + 1)]
        assert places[: len(before)] == pytest.approx(before)


def test_without_revisions_a_step_is_itself() -> None:
    assert [planned_step(step, 9, ()) for step in range(10)] == list(range(10))
