"""The forecast: its limits, its directions, and the measured runs that it was fitted to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.plan.forecast import (
    LEAST_PILOT,
    LONG_PILOT,
    REPETITION_DECAY,
    SHORT_PILOT,
    Pilot,
    effective_tokens,
    forecast,
    potential,
)

PILOT = Pilot(short_bits_per_byte=2.3, bits_per_byte=2.0, parameters=100_000, tokens=524_288)
TOKENS = st.integers(524_288, 10**10)


def test_the_forecast_of_a_pilot_is_its_own_loss() -> None:
    own = forecast(PILOT, PILOT.parameters, PILOT.tokens, 10**9)
    assert own.middle == pytest.approx(PILOT.bits_per_byte)
    assert own.low < own.middle < own.high
    assert own.holds(own.middle)
    assert not own.holds(1.01 * own.high)


# Bits per byte of the narrowest shape after so many tokens, by train_briefly of tests/e2e/test_recipe.py, seed 1337.
CUT = {
    "shakespeare": {65_536: 2.6887, 131_072: 2.5336, 262_144: 2.3836, 524_288: 2.2721},
    "speeches": {65_536: 2.0430, 131_072: 1.9027, 262_144: 1.8004, 524_288: 1.7265},
    "primer": {65_536: 1.5044, 131_072: 1.2285, 262_144: 0.8384, 524_288: 0.5997},
}


@pytest.mark.parametrize("text", CUT)
def test_shorter_pilots_forecast_the_loss_of_whole_ones(text: str) -> None:
    loss = CUT[text]
    cut = Pilot(loss[65_536], loss[262_144], 108_224, 262_144)
    expected = forecast(cut, 108_224, 524_288, 10**9)
    assert expected.holds(loss[524_288])
    assert cut.tokens == LEAST_PILOT, "the shortest that are believed"
    whole = Pilot(loss[131_072], loss[524_288], 108_224, 524_288)
    assert whole.slope < 1.5 * cut.slope < 2 * whole.slope
    own = forecast(cut, 108_224, 262_144, 10**9)
    assert own.middle == pytest.approx(loss[262_144])
    assert (
        own.high - own.middle > forecast(whole, 108_224, 524_288, 10**9).high - loss[524_288]
        or text == "primer"
    )


@given(TOKENS, TOKENS, st.integers(100_000, 10**9), st.integers(100_000, 10**9), st.floats(1.1, 2.0))
def test_the_best_network_is_the_one_of_the_most_potential(
    left: int, right: int, few: int, many: int, ratio: float
) -> None:
    """The best network does not depend on the pilots, so it can be chosen without them."""
    pilot = Pilot(2.0 * ratio, 2.0, 100_000, 524_288)
    losses = [forecast(pilot, size, tokens, 10**8).middle for size, tokens in ((few, left), (many, right))]
    gains = [potential(size, tokens, 10**8, 100_000) for size, tokens in ((few, left), (many, right))]
    if abs(gains[0] - gains[1]) > 1e-6:
        assert (losses[0] < losses[1]) == (gains[0] > gains[1])


@given(TOKENS, TOKENS, st.integers(100_000, 10**9), st.integers(100_000, 10**9))
def test_more_text_and_larger_networks_do_not_raise_the_forecast(
    left: int, right: int, few: int, many: int
) -> None:
    shorter, longer = sorted((left, right))
    small, large = sorted((few, many))
    assert forecast(PILOT, small, longer, 10**12).middle <= forecast(PILOT, small, shorter, 10**12).middle
    assert forecast(PILOT, large, longer, 10**12).middle <= forecast(PILOT, small, longer, 10**12).middle


@given(st.integers(1000, 10**9), st.floats(0.1, 1000))
def test_repeated_text_is_worth_less_and_less(train_tokens: int, epochs: float) -> None:
    seen = round(epochs * train_tokens)
    worth = effective_tokens(seen, train_tokens)
    assert worth <= seen
    assert worth <= train_tokens * (1 + REPETITION_DECAY)
    assert worth == seen or epochs > 0.99
    assert effective_tokens(seen + train_tokens, train_tokens) >= worth
    # The second reading is worth almost as much as new text.
    assert 1.8 * train_tokens < effective_tokens(2 * train_tokens, train_tokens) < 2 * train_tokens


RUNS = json.loads((Path(__file__).parents[2] / "bench" / "results" / "forecast.json").read_text())


@pytest.mark.parametrize("text", sorted({run["text"] for run in RUNS}))
def test_measured_runs_of_each_text_lie_within_the_band(text: str) -> None:
    short, long, *rest = [run for run in RUNS if run["text"] == text]
    pilot = Pilot(short["bits_per_byte"], long["bits_per_byte"], long["non_embedding"], long["tokens"])
    assert (short["tokens"], long["tokens"]) == (SHORT_PILOT.tokens, LONG_PILOT.tokens)
    assert rest
    for run in rest:
        expected = forecast(pilot, run["non_embedding"], run["tokens"], run["train_tokens"])
        assert expected.holds(run["bits_per_byte"]), run["settings"]
