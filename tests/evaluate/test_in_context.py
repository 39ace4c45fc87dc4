"""The in-context curve: planted slopes are found, and flat ones are not."""

from __future__ import annotations

import numpy as np
import pytest

from etude.errors import InputError
from etude.evaluate.in_context import in_context


def windows(slope: float, count: int = 60, seed: int = 0) -> np.ndarray:
    """Make losses that fall by `slope` for each doubling of the position, in windows of different difficulty."""
    generator = np.random.default_rng(seed)
    positions = np.arange(200)
    noise = generator.normal(size=(count, 200)) + generator.normal(size=(count, 1))
    return 3 - slope * np.log2(positions + 1) + noise


def test_a_planted_slope_is_found() -> None:
    found = in_context(windows(0.2))
    assert (found.early, found.late) == ((20, 40), (180, 200))
    true = -0.2 * (np.log2(np.arange(181, 201)).mean() - np.log2(np.arange(21, 41)).mean())
    assert found.gain.interval.holds(true)
    assert found.gain.standard_error < 0.1  # the difficulty of a window cancels
    assert found.learns
    assert found.spans[0].start == 0
    assert [a.end for a in found.spans[:-1]] == [b.start for b in found.spans[1:]]
    assert found.spans[-1].end == 200
    assert found.spans[0].loss.value > found.spans[-1].loss.value + 1


def test_a_flat_curve_is_not_called_learning() -> None:
    """In more than 92 of 100 studies: half of the 5 % outside the interval are on this side."""
    assert sum(in_context(windows(0.0, 20, seed)).learns for seed in range(100)) < 8


def test_every_span_has_its_own_mean() -> None:
    losses = np.arange(40.0)[None].repeat(3, 0)
    for span in in_context(losses).spans:
        assert span.loss.value == pytest.approx((span.start + span.end - 1) / 2)


def test_windows_of_a_document_count_once_and_gaps_are_skipped() -> None:
    losses = windows(0.2, 10)
    doubled = in_context(losses.repeat(2, 0), [str(at // 2) for at in range(20)])
    alone = in_context(losses)
    assert doubled.gain.count == 10
    assert doubled.gain.standard_error == pytest.approx(alone.gain.standard_error)
    short = losses.copy()
    short[0, 100:] = np.nan
    assert in_context(short).gain.value == pytest.approx(in_context(losses[1:]).gain.value)


def test_too_little_is_one_line() -> None:
    for losses in (np.zeros((1, 100)), np.zeros((5, 10))):
        with pytest.raises(InputError, match="two windows of 20 tokens"):
            in_context(losses)
    with pytest.raises(InputError, match="longer held-out documents"):
        in_context(np.where(np.arange(40) < 20, 1.0, np.nan)[None].repeat(4, 0))
