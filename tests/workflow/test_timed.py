"""``--time``: what is refused, what is chosen, and a real run that was given little time."""

from __future__ import annotations

import json
import time

import pytest
from rich.console import Console

from etude.config import Settings, with_values
from etude.errors import InputError
from etude.train.dial import MAX_EPOCHS
from etude.train.sizes import SHAPES
from etude.workflow import jobs
from etude.workflow.plan import prepare_data
from etude.workflow.timed import choose_size


@pytest.fixture
def timed_settings(small_settings: Settings) -> Settings:
    left_open = ("train.steps", "train.context", "train.batch_rows", "train.eval_every", "model.hidden_size")
    return with_values(small_settings, {"train.seconds": 60.0, **dict.fromkeys(left_open, "auto")})


def test_too_little_time_is_refused_with_what_is_left(timed_settings: Settings, console: Console) -> None:
    data = prepare_data(timed_settings, console)
    with pytest.raises(InputError, match="9 s of the time are left, and a run needs 30"):
        choose_size(data, timed_settings, time.monotonic() + 9.4, console)


def test_shapes_are_considered_from_narrow_to_wide_until_they_promise_less(
    timed_settings: Settings, console: Console
) -> None:
    open_size = with_values(timed_settings, {"model.size": "auto"})
    data = prepare_data(open_size, console)
    promise = choose_size(data, open_size, time.monotonic() + 60, console)
    considered = [candidate.shape for candidate in promise.candidates]
    assert considered == list(SHAPES[: len(considered)])
    best = min(promise.candidates, key=lambda candidate: candidate.expected.middle)
    assert promise.size.shape == best.shape
    assert promise.expected.low < promise.expected.middle < promise.expected.high


def test_a_run_for_a_time_keeps_its_settings_and_says_what_it_promised(
    timed_settings: Settings, console: Console
) -> None:
    outcome = jobs.grow(timed_settings, console)
    assert outcome.reason == "finished"
    recorded = json.loads(outcome.run.manifest_file.read_text())
    low, middle, high = recorded["expected_bits_per_byte"]
    assert 0 < low < middle < high
    assert "lowest loss expected in the time" in recorded["derived"]["model.hidden_size"]["reason"]
    last = [e for e in outcome.run.metrics.read() if e["event"] == "eval"][-1]
    assert last["step"] == outcome.step > 20
    # A text of some 20,000 tokens is not read more often than the rule says, whatever the time.
    assert last["tokens_seen"] <= MAX_EPOCHS * recorded["train_tokens"]
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "this text has nothing more to teach" in printed
    assert "Asked for 1:00, took" in printed
    assert "expected at the end:" in printed
