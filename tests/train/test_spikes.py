from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from etude.train.spikes import FEWEST, LossWatch, slope_of
from mixed_losses import mixed


def falling(count: int, seed: int = 0, noise: float = 0.05) -> list[float]:
    steps = np.arange(count)
    return list(1.5 + 6 * np.exp(-steps / 100) + noise * np.random.default_rng(seed).standard_normal(count))


def watched(losses: Sequence[float], watch: LossWatch, first: int = 1) -> dict[int, float]:
    """Return the usual loss at each step that is a spike, by the index of its loss."""
    found = (watch.spike(first + index, loss) for index, loss in enumerate(losses))
    return {index: usual for index, usual in enumerate(found) if usual is not None}


@pytest.mark.parametrize("seed", range(20))
def test_a_usual_curve_has_no_spikes(seed: int) -> None:
    assert watched(falling(2000, seed), LossWatch()) == {}


@pytest.mark.parametrize("at", [200, 300, 1999])
def test_a_jump_is_one_with_what_was_usual_before(at: int) -> None:
    losses = falling(2000)
    losses[at] += 6
    actual = watched(losses, LossWatch())
    assert list(actual) == [at]
    assert actual[at] == pytest.approx(np.median(losses[max(0, at - 64) : at]))


def test_nothing_is_a_spike_before_there_is_something_to_compare_with() -> None:
    watch = LossWatch()
    assert watched([2.0] * (FEWEST - 1) + [9.0], watch) == {}
    assert watch.spike(FEWEST + 1, 9.0) == 2.0


def test_a_new_level_becomes_usual() -> None:
    watch = LossWatch(enumerate(falling(800), 1))
    actual = watched([4.0 + 0.01 * (step % 3) for step in range(100)], watch, 801)
    assert 0 in actual
    assert max(actual) < 40


def test_a_session_continues_where_the_last_one_stopped() -> None:
    losses, shares = mixed(400)
    losses[210] += 4
    share_of = shares.__getitem__
    expected = watched(losses, LossWatch(shares=share_of), 0)
    second = LossWatch(enumerate(losses[:205]), share_of)
    actual = watched(losses[205:], second, 205)
    assert 210 in expected
    assert {index + 205: usual for index, usual in actual.items()} == pytest.approx(expected)


@pytest.mark.parametrize("rows", [1, 8, 64])
@pytest.mark.parametrize("replay", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("seed", range(2))
def test_rows_of_samples_are_no_spikes(seed: int, replay: float, rows: int) -> None:
    losses, shares = mixed(600, seed, replay, rows)
    assert watched(losses, LossWatch(shares=shares.__getitem__), 0) == {}


@pytest.mark.parametrize(("rows", "replay"), [(1, 0.2), (8, 0.03)])
def test_without_their_shares_they_would_be(rows: int, replay: float) -> None:
    assert len(watched(mixed(600, replay=replay, rows=rows)[0], LossWatch())) > 10


@pytest.mark.parametrize(
    ("rows", "sampled", "jump"), [(1, False, 0.5), (1, True, 6.0), (8, False, 0.5), (8, True, 1.0)]
)
@pytest.mark.parametrize("seed", range(2))
def test_a_jump_among_rows_of_samples_is_found(seed: int, rows: int, sampled: bool, jump: float) -> None:
    """A jump of the answers is less than what one row of samples changes."""
    losses, shares = mixed(900, seed, 0.2, rows)
    at = next(step for step in range(600, 900) if (shares[step] > 0) == sampled and shares[step] != 0.5)
    usual = losses[at]
    losses[at] += jump
    actual = watched(losses, LossWatch(shares=shares.__getitem__), 0)
    assert list(actual) == [at]
    assert actual[at] == pytest.approx(usual, abs=1.0 if sampled else 0.05)


def test_a_new_level_among_rows_of_samples_is_found() -> None:
    losses, shares = mixed(900)
    losses[600:] = [loss + 2 for loss in losses[600:]]
    actual = watched(losses, LossWatch(shares=shares.__getitem__), 0)
    assert 600 <= min(actual) < 605
    assert len(actual) > 10
    assert max(actual) < 900 - 100


def test_a_share_that_is_new_is_not_judged() -> None:
    shares = [0.0] * 40 + [0.5] * 20
    watch = LossWatch(shares=shares.__getitem__)
    losses = [0.1] * 40 + [1.6] * 10 + [9.0] + [1.6] * 7 + [9.0, 1.6]
    assert watched(losses, watch, 0) == {58: pytest.approx(1.6)}


def test_the_slope_is_exact_on_a_line_and_ignores_spikes() -> None:
    shares = np.random.default_rng(1).random(40)
    losses = 0.3 + 2.5 * shares
    assert slope_of(list(zip(losses, shares, strict=True))) == pytest.approx(2.5)
    losses[[3, 17, 30]] += [50.0, -20.0, 90.0]
    assert slope_of(list(zip(losses, shares, strict=True))) == pytest.approx(2.5)
    assert slope_of([(1.0, 0.2), (2.0, 0.2)]) == 0.0
