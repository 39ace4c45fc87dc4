"""Label placement and the other pure decisions of the plot."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.show.layout import log_ticks, place_labels, prefers_log, short_number, smoothed, thinned

heights = st.lists(st.floats(0, 1), max_size=12)


class TestPlaceLabels:
    @given(heights, st.floats(0.001, 0.5))
    def test_apart_in_bounds_and_in_order(self, wanted: list[float], gap: float) -> None:
        placed = place_labels(wanted, gap, 0, 1)
        assert len(placed) == len(wanted)
        assert all(-1e-9 <= height <= 1 + 1e-9 for height in placed)
        room = min(gap, 1 / max(1, len(wanted) - 1))
        ordered = sorted(placed)
        assert all(upper - lower >= room - 1e-9 for lower, upper in itertools.pairwise(ordered))
        for (a, at_a), (b, at_b) in itertools.combinations(zip(wanted, placed, strict=True), 2):
            assert (a < b) <= (at_a < at_b) or math.isclose(at_a, at_b)

    def test_labels_with_room_stay_where_they_are(self) -> None:
        assert place_labels([0.9, 0.1, 0.5], 0.05, 0, 1) == pytest.approx([0.9, 0.1, 0.5])

    def test_a_crowd_spreads_around_its_middle(self) -> None:
        assert place_labels([0.5, 0.5, 0.5], 0.1, 0, 1) == pytest.approx([0.4, 0.5, 0.6])

    @given(st.lists(st.integers(0, 12), min_size=1, max_size=4))
    def test_moves_as_little_as_any_placement_on_a_grid(self, cells: list[int]) -> None:
        wanted = [cell / 12 for cell in cells]
        placed = place_labels(wanted, 2 / 12, 0, 1)
        cost = sum((a - b) ** 2 for a, b in zip(placed, wanted, strict=True))
        options = itertools.product(range(13), repeat=len(cells))
        apart = (o for o in options if all(abs(a - b) >= 2 for a, b in itertools.combinations(o, 2)))
        best = min(sum((a / 12 - b) ** 2 for a, b in zip(o, wanted, strict=True)) for o in apart)
        assert cost <= best + 1e-9


class TestAxis:
    def test_early_learning_asks_for_a_log_axis_and_steady_learning_does_not(self) -> None:
        steps = list(range(0, 1001, 10))
        assert prefers_log(steps, [8 / (1 + step / 10) for step in steps])
        assert not prefers_log(steps, [8 - step / 200 for step in steps])
        assert not prefers_log(steps, [2.0] * len(steps))
        assert not prefers_log([0, 1], [8.0, 1.0])

    def test_ticks(self) -> None:
        assert log_ticks(1, 240) == [0, 1, 2, 5, 10, 20, 50, 100, 200]
        assert log_ticks(10, 123_456) == [0, 10, 100, 1000, 10_000, 100_000]

    def test_short_numbers(self) -> None:
        numbers = [0, 7, 999, 1000, 1234, 51_200, 128_000, 999_900, 1.26e6, 3e9, 2.5e12]
        shown = ["0", "7", "999", "1 k", "1.2 k", "51 k", "128 k", "1 M", "1.3 M", "3 G", "2.5 T"]
        assert list(map(short_number, numbers)) == shown


class TestCurves:
    def test_smoothing_is_the_mean_of_the_latest_twentieth(self) -> None:
        values = np.random.default_rng(0).normal(size=300)
        calm = smoothed(values)
        for index in (0, 5, 39, 40, 99, 299):
            window = max(1, int(0.05 * (index + 1)))
            assert calm[index] == pytest.approx(values[index + 1 - window : index + 1].mean())

    def test_smoothing_steps_over_what_is_not_a_number(self) -> None:
        values = np.ones(200)
        values[150] = np.nan
        values[160] = np.inf
        calm = smoothed(values)
        np.testing.assert_allclose(calm, 1)

    @given(st.integers(1, 5000), st.integers(2, 100), st.booleans())
    def test_thinning_keeps_the_ends_and_the_limit(self, count: int, limit: int, logarithmic: bool) -> None:
        indices = thinned(np.arange(1.0, count + 1), limit, logarithmic=logarithmic)
        assert len(indices) <= max(limit, 1)
        assert indices[0] == 0
        assert indices[-1] == count - 1
        assert (np.diff(indices) > 0).all()
