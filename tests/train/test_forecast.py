"""The forecast: its limits, its directions, and the measured runs that it was fitted to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.train.forecast import (
    LONG_PILOT,
    REPETITION_DECAY,
    SHORT_PILOT,
    Pilot,
    effective_tokens,
    forecast,
)

PILOT = Pilot(short_bits_per_byte=2.3, bits_per_byte=2.0, parameters=100_000, tokens=524_288)
TOKENS = st.integers(524_288, 10**10)


def test_a_pilot_expects_itself() -> None:
    own = forecast(PILOT, PILOT.parameters, PILOT.tokens, 10**9)
    assert own.middle == pytest.approx(PILOT.bits_per_byte)
    assert own.low < own.middle < own.high
    assert own.holds(own.middle)
    assert not own.holds(1.01 * own.high)


@given(TOKENS, TOKENS, st.integers(100_000, 10**9), st.integers(100_000, 10**9))
def test_more_text_and_more_network_promise_no_worse(one: int, other: int, few: int, many: int) -> None:
    shorter, longer = sorted((one, other))
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
