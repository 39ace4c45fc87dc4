"""The loss law on runs with a known law: recovered, robust, and no more certain than justified."""

from __future__ import annotations

import math

import numpy as np
import pytest

from etude.emergence.law import EndOfRun, fit_law
from etude.errors import InputError

FLOOR, COEFFICIENT, EXPONENT = 1.4, 2.0, 0.35


def truth(parameters: float) -> float:
    return FLOOR + COEFFICIENT * (parameters / 1e5) ** -EXPONENT


def runs(sizes: int, seeds: int, noise: float, seed: int = 0) -> list[EndOfRun]:
    generator = np.random.default_rng([seed, sizes, seeds])
    return [
        EndOfRun(size, 20 * size, truth(size) * math.exp(generator.normal(0, noise)))
        for size in (1e5 * 2**at for at in range(sizes))
        for _ in range(seeds)
    ]


def test_a_law_without_noise_is_recovered() -> None:
    law = fit_law(runs(6, 1, 0.0), draws=20)
    coefficient, exponent = law.size
    assert law.floor == pytest.approx(FLOOR, rel=1e-3)
    assert exponent == pytest.approx(EXPONENT, rel=2e-3)
    assert coefficient == pytest.approx(COEFFICIENT * 1e5**EXPONENT, rel=2e-2)
    assert law.predict(1e8).value == pytest.approx(truth(1e8), rel=1e-3)


def test_the_fit_is_as_good_as_scipys() -> None:
    from scipy.optimize import least_squares

    noisy = runs(5, 2, 0.004)
    sizes = np.array([run.parameters for run in noisy]) / 1e5
    losses = np.log([run.loss for run in noisy])

    def residuals(p: np.ndarray) -> np.ndarray:
        return np.log(np.exp(p[0]) + np.exp(p[1] - np.exp(p[2]) * np.log(sizes))) - losses

    theirs = least_squares(residuals, x0=(0.0, 0.5, -1.0), loss="huber", f_scale=1e-2)
    law = fit_law(noisy, draws=20)
    ours = [law.predict(run.parameters).value for run in noisy]
    differences = np.log(ours) - losses
    cost = np.where(
        np.abs(differences) < 1e-2, differences**2 / 2, 1e-2 * (np.abs(differences) - 0.5e-2)
    ).sum()
    assert cost <= theirs.cost * 1.001 + 1e-12


def test_one_run_that_went_wrong_bends_it_little() -> None:
    good = runs(5, 3, 0.003)
    bad = [*good[:-2], EndOfRun(good[-2].parameters, good[-2].tokens, 1.5 * good[-2].loss), good[-1]]
    clean, bent = (fit_law(some, draws=20).predict(3.2e6).value for some in (good, bad))
    assert bent == pytest.approx(clean, rel=0.03)


def test_tokens_enter_where_they_vary() -> None:
    made = [
        EndOfRun(size, tokens, 1.2 + 2 * (size / 1e5) ** -0.4 + 1.5 * (tokens / 1e7) ** -0.3)
        for size in (1e5, 2e5, 4e5, 8e5)
        for tokens in (1e7, 3e7, 1e8)
    ]
    law = fit_law(made, draws=20)
    assert law.data is not None
    assert (law.size[1], law.data[1]) == pytest.approx((0.4, 0.3), rel=0.05)
    assert law.predict(1.6e6, 3e8).value == pytest.approx(1.2 + 2 * 16**-0.4 + 1.5 * 30**-0.3, rel=5e-3)
    with pytest.raises(InputError, match="number of tokens"):
        law.predict(1e6)
    assert fit_law(runs(4, 3, 0.003), draws=20).data is None
    odd = [EndOfRun(run.parameters, 1e7 * (1 + at % 3), run.loss) for at, run in enumerate(runs(5, 1, 0.003))]
    assert fit_law(odd, draws=20).data is None


def test_the_interval_holds_a_new_run_of_a_larger_size() -> None:
    """The interval covers 95 %, within the error of 40 studies, and is not simply unbounded."""
    generator = np.random.default_rng(4)
    held, widths = 0, []
    for number in range(40):
        prediction = fit_law(runs(4, 3, 0.005, number), draws=100).predict(3.2e6)
        held += prediction.interval.holds(truth(3.2e6) * math.exp(generator.normal(0, 0.005)))
        widths.append((prediction.interval.high - prediction.interval.low) / prediction.value)
    assert held >= 35
    assert np.median(widths) < 0.12


def test_the_interval_tells_near_from_far_and_quiet_from_noisy() -> None:
    def width(noise: float, parameters: float) -> float:
        interval = fit_law(runs(4, 3, noise), draws=200).predict(parameters).interval
        return interval.high - interval.low

    assert width(0.002, 1.6e6) < width(0.002, 6.4e6) < width(0.01, 6.4e6)


def test_it_says_from_how_much_it_speaks() -> None:
    few, many = fit_law(runs(3, 2, 0.004)), fit_law(runs(6, 3, 0.004))
    assert "uncertain with so few points" in few.describe(1e6)
    assert "uncertain" not in many.describe(1e7)
    assert "18 runs of 6 sizes" in many.describe(1e7)
    assert many.exponent_interval().holds(many.size[1])
    assert many.predict(1e7) == fit_law(runs(6, 3, 0.004)).predict(1e7)


def test_too_little_is_refused() -> None:
    with pytest.raises(InputError, match="three sizes"):
        fit_law(runs(2, 3, 0.01))
    with pytest.raises(InputError, match="three sizes"):
        fit_law([])
    with pytest.raises(InputError, match="cannot fix"):
        fit_law(runs(3, 1, 0.01))
    with pytest.raises(InputError, match="positive"):
        EndOfRun(0, 1, 1)
    with pytest.raises(InputError, match="positive"):
        EndOfRun(1, 1, math.nan)
