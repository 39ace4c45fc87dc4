"""Dropout masks: the requested rate, independence, and no dependence on micro-batches."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from etude.model.dropout import Dropout, keep_masks, keep_scale

ROWS = 8
CPU = torch.device("cpu")


def dropped(seed: int, place: int, probability: float = 0.25, first_row: int = 0) -> Tensor:
    return ~keep_masks(probability, seed, first_row, (place + 1, ROWS, 64, 128), CPU)[place]


@pytest.mark.parametrize("probability", [0.03, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("seed", [0, 1, -1, 2**31 - 1, -(2**31)])
def test_the_requested_rate_is_dropped_and_the_mean_stays(probability: float, seed: int) -> None:
    x = torch.ones(ROWS, 65, 129)
    dropout = Dropout(keep_masks(probability, seed, 0, (2, *x.shape), CPU), keep_scale(probability))
    nearest = round(probability * 256) / 256
    spread = (nearest * (1 - nearest) / x.numel()) ** 0.5
    for place in range(2):
        result = dropout(x, place)
        assert float((result == 0).float().mean()) == pytest.approx(nearest, abs=5 * spread)
        assert float(result.mean()) == pytest.approx(1.0, abs=5 * spread / (1 - nearest))


@pytest.mark.parametrize(
    ("left", "right"), [((5, 0), (6, 0)), ((5, 0), (5, 1)), ((5, 1), (6, 0)), ((5, 0), (5 + 2**16, 0))]
)
def test_seeds_and_places_are_independent(left: tuple[int, int], right: tuple[int, int]) -> None:
    first, second = dropped(*left), dropped(*right)
    both = float((first & second).float().mean())
    assert both == pytest.approx(1 / 16, abs=5 * (15 / 256 / first.numel()) ** 0.5)


@pytest.mark.parametrize("lag", [1, 2, 3, 4, 64, 128, 8192, 12345])
def test_neighbours_are_independent_and_masks_of_two_seeds_are_not_shifted_copies(lag: int) -> None:
    left, right = dropped(7, 0).flatten(), dropped(8, 0).flatten()
    for second in (left, right):
        both = float((left[lag:] & second[:-lag]).float().mean())
        assert both == pytest.approx(1 / 16, abs=5 * (15 / 256 / (left.numel() - lag)) ** 0.5)


def test_a_row_is_the_same_in_any_micro_batch() -> None:
    whole = dropped(9, 2)
    assert torch.equal(dropped(9, 2, first_row=3)[:5], whole[3:])


def test_rows_beyond_32_bits_of_index_have_masks() -> None:
    far = dropped(9, 2, first_row=2**32 // (64 * 32) - 4)
    assert float(far.float().mean()) == pytest.approx(0.25, abs=0.01)
