from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from etude.train.spikes import FEWEST, LossWatch, at_equal_shares, slope_at
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
    second = LossWatch(list(enumerate(losses[:205]))[-64:], share_of)
    actual = watched(losses[205:], second, 205)
    assert 210 in expected
    assert {index + 205: usual for index, usual in actual.items()} == pytest.approx(expected)


@pytest.mark.parametrize("replay", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("seed", range(10))
def test_rows_of_samples_are_no_spikes(seed: int, replay: float) -> None:
    losses, shares = mixed(600, seed, replay)
    assert watched(losses, LossWatch(shares=shares.__getitem__), 0) == {}


def test_without_their_shares_they_would_be() -> None:
    assert len(watched(mixed(600)[0], LossWatch())) > 10


@pytest.mark.parametrize("kind", ["answers", "samples"])
@pytest.mark.parametrize("seed", range(10))
def test_a_jump_among_rows_of_samples_is_found(kind: str, seed: int) -> None:
    losses, shares = mixed(600, seed)
    wanted: Callable[[float], bool] = (lambda share: share == 0) if kind == "answers" else (lambda share: share > 0)
    at = next(step for step in range(300, 600) if wanted(shares[step]) and shares[step] <= max(shares[step - 64 : step]))
    usual = losses[at]
    losses[at] += 0.5  # less than a row of samples changes the loss of the step, twice over
    actual = watched(losses, LossWatch(shares=shares.__getitem__), 0)
    assert list(actual) == [at]
    assert actual[at] == pytest.approx(usual, abs=0.2)


def test_a_share_outside_the_earlier_ones_is_not_judged() -> None:
    shares = [0.0] * 40 + [0.5, 0.5, 0.0]
    watch = LossWatch(shares=shares.__getitem__)
    assert watched([*[0.1] * 40, 1.6, 9.0, 0.1], watch, 0) == {41: pytest.approx(1.6)}


def test_the_slope_is_exact_on_a_line_and_ignores_spikes() -> None:
    shares = np.random.default_rng(1).random(40)
    losses = 0.3 + 2.5 * shares
    assert slope_at(0.5, list(losses), list(shares)) == pytest.approx(2.5)
    losses[[3, 17, 30]] += [50.0, -20.0, 90.0]
    assert slope_at(0.5, list(losses), list(shares)) == pytest.approx(2.5)
    assert slope_at(1.5, list(losses), list(shares)) is None
    assert slope_at(0.2, [1.0, 2.0], [0.2, 0.2]) == 0.0


def test_losses_at_equal_shares_differ_by_their_noise_alone() -> None:
    losses, shares = mixed(600)
    moved = np.array(at_equal_shares(losses, shares))
    known = np.isfinite(moved)
    assert known.sum() > 550
    late = known & (np.arange(600) > 200)
    assert moved[late].std() < 0.3 * np.array(losses)[late].std()
    assert at_equal_shares(falling(30), [0.0] * 30) == falling(30)
