from __future__ import annotations

import numpy as np
import pytest

from etude.train.spikes import FEWEST, LossWatch


def falling(count: int, seed: int = 0, noise: float = 0.05) -> list[float]:
    steps = np.arange(count)
    return list(1.5 + 6 * np.exp(-steps / 100) + noise * np.random.default_rng(seed).standard_normal(count))


@pytest.mark.parametrize("seed", range(20))
def test_a_usual_curve_has_no_spikes(seed: int) -> None:
    watch = LossWatch()
    assert [watch.spike(loss) for loss in falling(2000, seed)] == [None] * 2000


@pytest.mark.parametrize("at", [200, 300, 1999])
def test_a_jump_is_one_with_what_was_usual_before(at: int) -> None:
    losses = falling(2000)
    losses[at] += 6
    watch = LossWatch()
    actual = {step: usual for step, loss in enumerate(losses) if (usual := watch.spike(loss)) is not None}
    assert list(actual) == [at]
    assert actual[at] == pytest.approx(np.median(losses[max(0, at - 64) : at]))


def test_nothing_is_a_spike_before_there_is_something_to_compare_with() -> None:
    watch = LossWatch()
    assert [watch.spike(loss) for loss in [2.0] * (FEWEST - 1) + [9.0]][-1] is None
    assert watch.spike(9.0) == 2.0


def test_a_new_level_becomes_usual() -> None:
    watch = LossWatch(falling(800))
    actual = [watch.spike(4.0 + 0.01 * (step % 3)) is not None for step in range(100)]
    assert actual[0]
    assert not any(actual[40:])


def test_a_session_continues_where_the_last_one_stopped() -> None:
    losses = falling(400)
    losses[210] += 4
    whole, first = LossWatch(), LossWatch()
    expected = [whole.spike(loss) for loss in losses]
    actual = [first.spike(loss) for loss in losses[:205]]
    second = LossWatch(losses[:205][-64:])
    assert actual + [second.spike(loss) for loss in losses[205:]] == expected
