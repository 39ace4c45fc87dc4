"""Verdicts on studies of known truth, and the underlying fits compared with scipy's."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from etude.emergence.change_point import (
    BEFORE,
    LEAST_SCATTER,
    compare,
    hidden_gain,
    rise,
)
from etude.emergence.curves import Curve, Floats, errors_of, log_positions
from etude.emergence.simulated import RIGHT, Truth, error_rates
from etude.emergence.verdict import BETTER, RULES, Word, find, over_seeds, verdict
from etude.evaluate.statistics import Estimate, Interval, Z

T = np.log(2.0) * np.arange(14)


def logistic(t: Floats, middle: float, factor: float) -> Floats:
    """Rises from 10 % to 90 % within a factor."""
    return 1 / (1 + np.exp(-(t - middle) * 2 * math.log(9) / math.log(factor)))


def estimate(value: float, error: float = 0.02) -> Estimate:
    return Estimate(value, error, Interval(value - Z * error, value + Z * error), 256)


def curve(margins: Sequence[float], seed: int = 0, accuracies: Sequence[float] | None = None) -> Curve:
    shares = [0.5 + value / 2 for value in margins] if accuracies is None else accuracies
    x = tuple(float(2**at) for at in range(len(margins)))
    return Curve(seed, x, tuple(map(estimate, margins)), tuple(map(estimate, shares)), 0.5)


@pytest.mark.parametrize("truth", list(Truth))
def test_planted_studies_get_the_right_verdict(truth: Truth) -> None:
    """bench/verdicts.py makes the full table; these are the first studies of other random numbers."""
    counts = error_rates(lambda curves: verdict(curves).word, truth, 20, seed=11)
    assert counts.get(RIGHT[truth], 0) >= 18, counts
    if truth not in (Truth.SHARP, Truth.BIMODAL):
        assert counts.get(Word.EMERGED, 0) <= 2, counts


def test_the_slower_the_rise_the_rarer_the_word() -> None:
    emerged = [
        error_rates(lambda c: verdict(c).word, Truth.SMOOTH, 12, seed=12, rise_factor=factor).get(
            Word.EMERGED, 0
        )
        for factor in (1.5, 3.0, 12.0)
    ]
    assert emerged[0] >= 10
    assert emerged[0] > emerged[1] > emerged[2] - 1
    assert emerged[2] <= 1


def test_the_planted_studies_can_fail() -> None:
    """A judge that takes a curve's largest step for a change is often wrong."""

    def naive(curves: Sequence[Curve]) -> Word:
        jumps = [max(np.diff([one.value for one in c.margin])) for c in curves]
        return Word.EMERGED if min(jumps) > 0.08 else Word.SMOOTH

    assert error_rates(naive, Truth.SMOOTH, 24, seed=11).get(Word.EMERGED, 0) > 5


def test_a_smooth_fit_is_as_good_as_scipys() -> None:
    from scipy.optimize import curve_fit

    generator = np.random.default_rng(0)
    errors = generator.uniform(0.02, 0.05, len(T))
    for factor in (6.0, 20.0):
        values = -0.1 + 0.6 * logistic(T, 4.8, factor) + generator.normal(0, errors)

        def model(t: Floats, base: float, height: float, middle: float, width: float) -> Floats:
            return base + height / (1 + np.exp(-(t - middle) / width))

        found, _ = curve_fit(model, T, values, p0=(0, 0.5, 5, 0.8), sigma=errors, maxfev=20000)
        squares = (((model(T, *found) - values) / errors) ** 2).sum()
        theirs = len(T) * math.log(squares / len(T)) + len(T) + 5 * math.log(len(T))
        assert compare(T, values, errors).smooth.bic <= theirs + 0.2


def test_the_bic_of_a_constant_by_definition() -> None:
    generator = np.random.default_rng(1)
    errors = generator.uniform(0.5, 1.5, len(T))
    values = generator.normal(3, 2 * errors)
    level = np.average(values, weights=errors**-2)
    scatter = (((values - level) / errors) ** 2).mean()
    expected = len(T) * math.log(scatter) + len(T) + 2 * math.log(len(T))
    found = compare(T, values, errors).constant
    assert found.bic == pytest.approx(expected)
    assert found.num_parameters == 2
    still = compare(T, np.full(len(T), 3.0), errors).constant
    assert still.bic == pytest.approx(len(T) * math.log(LEAST_SCATTER**2) + 2 * math.log(len(T)))


def test_a_jump_is_found_where_it_is() -> None:
    values = np.where(np.arange(14) >= 8, 0.6, 0.0) + 0.01 * np.sin(np.arange(14) * 5.0)
    found = compare(T, values, np.full(14, 0.02))
    assert found.advantage > 10
    assert found.change is not None
    assert found.change.place is not None
    assert T[7] < found.change.place < T[8]
    assert np.abs(found.change.values - values).max() < 0.02


def test_neither_units_nor_place_matter() -> None:
    generator = np.random.default_rng(2)
    for values in (0.6 * logistic(T, 5, 12), np.where(T > 5, 0.6, 0.0)):
        noisy = values + generator.normal(0, 0.03, len(T))
        errors = np.full(len(T), 0.03)
        first = compare(T, noisy, errors).advantage
        assert compare(T, noisy, errors).advantage == first
        assert compare(T + 9, 100 * noisy - 7, 100 * errors).advantage == pytest.approx(first, abs=1e-3)


def test_one_strange_point_is_no_change() -> None:
    for at in (*range(BEFORE - 1), -1):
        values = 0.005 * np.cos(np.arange(14) * 3.0)
        values[at:] = values[at:] + (0.5 if at == -1 else 0)
        values[at] += 0.5
        assert compare(T, values, np.full(14, 0.02)).advantage < 2


def test_rise_and_what_a_threshold_hides() -> None:
    fine = np.linspace(-10, 20, 3001)
    assert rise(fine, logistic(fine, 5, 10)) == pytest.approx(math.log(10), rel=1e-3)
    assert rise(fine, -fine) == math.inf
    smooth = logistic(fine, 5, 10)
    assert hidden_gain(fine, smooth, smooth) == pytest.approx(0.1, abs=1e-3)
    assert hidden_gain(fine, smooth, smooth**10) == pytest.approx(0.1**0.1, abs=1e-3)
    assert hidden_gain(fine, smooth, -smooth) == 0


SHARP = [0.0, 0.01, -0.01, 0.0, 0.01, 0.0, -0.01, 0.6, 0.61, 0.6, 0.59, 0.6]
SMOOTH = (0.6 * logistic(T[:12], 4, 16)).tolist()
NOTHING = [0.01, -0.01, 0.0, 0.01, 0.0, -0.01, 0.0, 0.01, -0.01, 0.0, 0.01, 0.0]


@pytest.mark.parametrize(
    ("margins", "word"),
    [
        ([SHARP], Word.ONE_SEED),
        ([SHARP] * 2, Word.TWO_SEEDS),
        ([SHARP] * 3, Word.EMERGED),
        ([SHARP, SHARP, SMOOTH], Word.EMERGED),
        ([SHARP, SMOOTH, SMOOTH], Word.SMOOTH),
        ([SHARP] * 2 + [SMOOTH] * 2, Word.UNDECIDED),
        ([SMOOTH] * 3, Word.SMOOTH),
        ([NOTHING] * 3, Word.NOT_YET),
        ([SHARP, SHARP, NOTHING], Word.MIXED),
        ([NOTHING, SMOOTH, NOTHING, NOTHING], Word.MIXED),
        ([[0.5 + value for value in NOTHING]] * 3, Word.FROM_THE_START),
        ([SHARP[5:]] * 3, Word.FEW_POINTS),
    ],
)
def test_words(margins: list[list[float]], word: Word) -> None:
    found = verdict([curve(values, seed) for seed, values in enumerate(margins)])
    assert found.word is word
    assert f"{len(margins)} seed" in found.numbers
    assert (
        f"wins in {sum(values is SHARP for values in margins)} of {len(margins)}" in found.numbers
        or word in (Word.FEW_POINTS,)
    )


def test_a_smooth_margin_under_a_sharp_threshold() -> None:
    power = [0.5 + 0.5 * (value / 0.6) ** 12 for value in SMOOTH]
    seeds = [curve(SMOOTH, seed, power) for seed in range(3)]
    assert verdict(seeds).word is Word.METRIC
    assert all(found.sharp_threshold and found.hidden > 0.5 for found in verdict(seeds).seeds)
    assert not find(curve(SMOOTH)).sharp_threshold


def test_right_answers_without_a_margin_did_not_grow() -> None:
    """Accuracy reaches 0.66 while the margin falls to -0.2, as in the induction of the stories study."""
    falling = [-0.2 * at / 11 + 0.005 * (-1) ** at for at in range(12)]
    rising = [0.5 + 0.16 * at / 11 for at in range(12)]
    found = verdict([curve(falling, seed, rising) for seed in range(3)])
    assert found.word is Word.ONLY_ANSWERS
    assert all(one.there and not one.in_margin and not one.smooth for one in found.seeds)
    assert "rise over" not in found.numbers
    from_below = [value - 1 for value in SMOOTH]
    assert verdict([curve(from_below, seed, rising) for seed in range(3)]).word is Word.ONLY_ANSWERS
    jumping = [value - 1 for value in SHARP]
    assert verdict([curve(jumping, seed, rising) for seed in range(3)]).word is Word.ONLY_ANSWERS


@pytest.mark.parametrize(
    "margins",
    [
        [0.3 - 0.2 * at / 11 for at in range(12)],  # falls
        [0.3 + 0.002 * (-1) ** at + 0.02 * at / 11 for at in range(12)],  # rises within its errors
        [0.3, 0.2, 0.1, 0.0, -0.1, -0.1, 0.0, 0.1, 0.2, 0.3, 0.3, 0.31],  # comes back to where it began
    ],
)
def test_above_chance_is_no_smooth_rise(margins: list[float]) -> None:
    rising = [0.5 + 0.3 * at / 11 for at in range(12)]
    found = verdict([curve(margins, seed, rising) for seed in range(3)])
    assert found.word is Word.UNDECIDED
    assert all(one.in_margin and not one.smooth for one in found.seeds)


def test_between_smooth_and_sharp_there_is_no_verdict() -> None:
    """A rise that is neither: in each seed, a change point is slightly better, or as good."""
    rises = [0.6 * logistic(T[:12], 4, factor) for factor in (2.6, 3.0, 3.4, 4.0, 5.0)]
    generator = np.random.default_rng(5)
    curves = [curve((values + generator.normal(0, 0.03, 12)).tolist()) for values in rises * 12]
    found = [(one, find(one)) for one in curves]
    between = [one for one, said in found if abs(said.advantage) < BETTER and said.in_margin][:2]
    leaning = next(one for one, said in found if said.changed)
    assert len(between) == 2
    assert verdict([leaning, *between]).word is Word.UNDECIDED
    assert verdict([leaning, leaning, between[0]]).word is Word.EMERGED
    assert verdict([curve(SMOOTH), *between]).word is Word.UNDECIDED
    assert verdict([curve(SMOOTH), curve(SMOOTH), between[0]]).word is Word.SMOOTH
    for one in between:
        assert not find(one).smooth
        assert not find(one).changed


def constant_curve(margin: float, accuracy: float, error: float, seed: int) -> Curve:
    scores = (estimate(margin, error),) * 12
    return Curve(seed, tuple(2.0**at for at in range(12)), scores, (estimate(accuracy, 0.03),) * 12, 0.5)


@pytest.mark.parametrize(
    ("margins", "accuracies", "error", "mixed"),
    [
        ((0.11, 0.08, 0.45), (0.92, 0.87, 0.91), 0.02, False),  # all have it
        ((-2.0, -2.0, 0.02), (0.5, 0.5, 0.5), 0.05, False),  # none has it
        ((-2.0, -2.0, 0.02), (0.5, 0.5, 0.7), 0.05, False),  # one has it, but not in nats
        ((-0.02, 0.01, 0.45), (0.5, 0.51, 0.91), 0.02, True),
        ((0.01, 0.44, 0.45), (0.51, 0.92, 0.91), 0.02, True),
        ((0.4, 0.5, 0.45), (0.9, 0.92, 0.91), 0.02, False),
    ],
)
def test_seeds_are_mixed_where_some_have_it_and_some_not(
    margins: Sequence[float], accuracies: Sequence[float], error: float, mixed: bool
) -> None:
    pairs = enumerate(zip(margins, accuracies, strict=True))
    found = verdict([constant_curve(*pair, error, seed) for seed, pair in pairs])
    assert (found.word is Word.MIXED) is mixed


def test_every_word_has_its_rule() -> None:
    rules = " ".join(RULES).lower()
    said = ("emerged", "grew smoothly", "the sharpness is the metric's", "mixed over seeds", "not there yet")
    more = (Word.ONLY_ANSWERS, "how it developed is undecided", Word.FROM_THE_START)
    for words in (*said, *more):
        assert f"'{words}'" in rules
        assert any(words in word for word in Word)


def test_the_numbers_say_where() -> None:
    found = verdict([curve(SHARP, seed) for seed in range(3)])
    for seed in found.seeds:
        assert seed.changed_at is not None
        assert 64 < seed.changed_at < 128
        assert seed.rise <= 2
    assert "change at step" in found.numbers
    assert found.num_changed == 3
    assert found.margin.value == pytest.approx(0.6)
    assert any("3 seeds" in rule for rule in RULES)


def test_an_interval_over_few_seeds_covers_the_truth() -> None:
    """Seeds share their items, so the items' error does not shrink with the number of seeds."""
    generator = np.random.default_rng(3)
    covered = 0
    for _ in range(600):
        shared = generator.normal(0, 0.03)
        seeds = [estimate(0.4 + shared + generator.normal(0, 0.05), 0.03) for _ in range(3)]
        covered += over_seeds(seeds).interval.holds(0.4)
    assert 0.94 < covered / 600 <= 0.995


def test_students_t_against_scipy() -> None:
    from scipy.stats import t

    for count in (2, 3, 5, 11, 12, 30):
        values = np.arange(count) / 10
        spread = over_seeds([estimate(float(value), 0.0) for value in values])
        half = t.ppf(0.975, count - 1) * values.std(ddof=1) / math.sqrt(count)
        assert spread.interval.high - spread.value == pytest.approx(half, rel=2e-3)


def test_errors_fit_to_weigh_by() -> None:
    strange = (estimate(0.1, 0.0), estimate(0.2, 0.1), estimate(0.2, 0.1), estimate(0.3, math.inf))
    assert errors_of(strange).tolist() == [0.05, 0.1, 0.1, 0.1]
    assert errors_of((estimate(0.1, 0.0),) * 3).tolist() == [1, 1, 1]
    assert log_positions((0.0, 4.0, 8.0)) == pytest.approx(np.log([2.0, 4.0, 8.0]))


def test_odd_curves_are_refused() -> None:
    one = (estimate(0.1),)
    for x, margin in (((), ()), ((1.0, 2.0), one), ((-1.0,), one)):
        with pytest.raises(ValueError, match="curve"):
            Curve(0, x, margin, margin, 0.5)
    with pytest.raises(ValueError, match="ascend"):
        Curve(0, (2.0, 2.0), one * 2, one * 2, 0.5)
    with pytest.raises(ValueError, match="curve"):
        verdict([])


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 40])
def test_any_number_of_points(count: int) -> None:
    generator = np.random.default_rng(count)
    for _ in range(4):
        found = verdict([curve(generator.normal(0, 0.1, count).tolist(), seed) for seed in range(3)])
        assert found.num_points == count
        assert count >= 8 or found.word in (Word.FEW_POINTS, Word.NOT_YET, Word.MIXED)
