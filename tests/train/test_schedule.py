from __future__ import annotations

from itertools import pairwise
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.config import TrainSettings
from etude.train.schedule import lr_factor

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
        steps=steps, schedule=schedule, warmup_fraction=warmup, decay_fraction=decay, min_lr_ratio=floor
    )
    factors = [lr_factor(step, settings) for step in range(1, steps + 1)]
    assert all(0 < factor <= 1 for factor in factors)
    top = factors.index(max(factors))
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    assert top <= round(warmup * steps)


def test_linear_falls_in_equal_steps_to_its_floor() -> None:
    settings = TrainSettings(steps=100, warmup_fraction=0.1, min_lr_ratio=0.1)
    factors = [lr_factor(step, settings) for step in range(10, 101)]
    drops = [a - b for a, b in pairwise(factors)]
    assert max(drops) - min(drops) < 1e-12
    assert factors[0] == 1.0
    assert factors[-1] == pytest.approx(0.1 + 0.9 / 91)


def test_wsd_is_flat_until_the_decay() -> None:
    settings = TrainSettings(steps=100, schedule="wsd", warmup_fraction=0.1, decay_fraction=0.4)
    assert [lr_factor(step, settings) for step in range(10, 61)] == [1.0] * 51
    assert lr_factor(61, settings) < 1.0


def test_cosine_is_half_way_down_in_the_middle() -> None:
    settings = TrainSettings(steps=99, schedule="cosine", warmup_fraction=0.0)
    assert lr_factor(50, settings) == pytest.approx(0.5)
