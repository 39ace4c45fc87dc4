"""The sampling distribution against an independent implementation, and draws against the distribution."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from etude.errors import EtudeError, InputError
from etude.generate.sampling import (
    USUAL_SAMPLING,
    SamplingSettings,
    changed,
    choose,
    draw,
    penalised,
    require_seed,
    row_seed,
    token_probabilities,
)

Array = NDArray[np.float64]


def reference(logits: list[float], s: SamplingSettings) -> Array:
    """One row, one rule at a time, by sets of tokens and sums in plain Python."""
    order = sorted(range(len(logits)), key=lambda token: (-logits[token], token))
    if s.temperature == 0:
        remaining = {order[0]: 1.0}
    else:
        remaining = {token: math.exp((logits[token] - logits[order[0]]) / s.temperature) for token in order}
    if s.top_k is not None:
        remaining = {token: remaining[token] for token in order[: s.top_k] if token in remaining}
    total, reached, nucleus = math.fsum(remaining.values()), 0.0, []
    for token in [token for token in order if token in remaining]:
        if s.top_p < 1 and nucleus and reached >= s.top_p * total:
            break
        nucleus.append(token)
        reached += remaining[token]
    remaining = {
        token: remaining[token] for token in nucleus if remaining[token] >= s.min_p * max(remaining.values())
    }
    result = np.zeros(len(logits))
    for token, weight in remaining.items():
        result[token] = weight / math.fsum(remaining.values())
    return result


logit_rows = st.lists(st.integers(-40, 40).map(lambda x: x / 8), min_size=1, max_size=30)
choices = st.builds(
    SamplingSettings,
    temperature=st.sampled_from([0.0, 0.01, 0.5, 1.0, 3.0]),
    top_k=st.none() | st.integers(1, 12),
    top_p=st.sampled_from([0.03, 0.31, 0.77, 0.951, 1.0]),
    min_p=st.sampled_from([0.0, 0.013, 0.37, 1.0]),
)


@settings(max_examples=300)
@given(st.data(), choices)
def test_against_an_independent_implementation(data: st.DataObject, s: SamplingSettings) -> None:
    logits = data.draw(logit_rows)
    batch = torch.tensor([logits, logits[::-1]])
    probabilities = token_probabilities(batch, s)
    np.testing.assert_allclose(probabilities[0].numpy(), reference(logits, s), atol=1e-12)
    np.testing.assert_allclose(probabilities[1].numpy(), reference(logits[::-1], s), atol=1e-12)
    assert probabilities.sum(dim=-1).tolist() == pytest.approx([1.0, 1.0])


def support(logits: torch.Tensor, **changes: Any) -> list[int]:
    return [int(x) for x in token_probabilities(logits, SamplingSettings(**changes)).count_nonzero(dim=-1)]


def test_numbers_of_remaining_tokens() -> None:
    logits = torch.tensor([[0.5, 0.25, 0.15, 0.1], [0.25, 0.25, 0.25, 0.25]]).log()
    assert support(logits) == [4, 4]
    assert support(logits, temperature=0.0) == [1, 1]
    assert support(logits, top_k=2) == [2, 2]
    assert support(logits, top_k=9) == [4, 4]
    assert support(logits, top_p=0.7) == [2, 3]
    assert support(logits, top_p=0.8) == [3, 4]
    assert support(logits, top_p=1e-9) == [1, 1]
    assert support(logits, min_p=0.4) == [2, 4]
    assert support(logits, min_p=1.0) == [1, 4]


def test_order_of_application() -> None:
    """top_p counts what top_k left, and temperature comes before both."""
    logits = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log()
    assert support(logits, top_k=2, top_p=0.5) == [1]  # 0.4 / 0.7 reaches one half
    assert support(logits, top_p=0.5) == [2]
    assert support(logits, temperature=0.25, top_p=0.5) == [1]
    assert support(logits, temperature=100.0, min_p=0.9) == [4]


def test_ties_go_to_the_lower_id() -> None:
    logits = torch.tensor([[1.0, 3.0, 3.0, 3.0]])
    greedy = token_probabilities(logits, SamplingSettings(temperature=0.0))
    assert greedy.tolist() == [[0, 1, 0, 0]]
    two = token_probabilities(logits, SamplingSettings(top_k=2))
    assert two.tolist() == [[0, 0.5, 0.5, 0]]


def test_extreme_logits_stay_finite() -> None:
    logits = torch.tensor([[1e30, -1e30, 0.0], [3e38, 3e38, -3e38]])
    for temperature in (1e-30, 1.0, 1e30):
        probabilities = token_probabilities(logits, SamplingSettings(temperature=temperature))
        assert torch.isfinite(probabilities).all()
        assert probabilities.sum(dim=-1).tolist() == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize(
    "changes", [{}, {"temperature": 1.7}, {"top_k": 5}, {"top_p": 0.8}, {"min_p": 0.1}], ids=str
)
def test_frequencies_of_draws(changes: dict[str, Any]) -> None:
    """Chi-square over 20,000 draws, at most 5 standard deviations above its expectation."""
    logits = torch.randn(1, 12, generator=torch.Generator().manual_seed(2)) * 1.5
    probabilities = token_probabilities(logits, SamplingSettings(**changes))[0].numpy()
    generator = torch.Generator().manual_seed(3)
    count = 20_000
    seen = np.bincount([draw(probabilities, generator) for _ in range(count)], minlength=12)
    expected = count * probabilities
    assert seen[expected == 0].sum() == 0
    possible = expected > 0
    chi_square = ((seen - expected)[possible] ** 2 / expected[possible]).sum()
    freedom = possible.sum() - 1
    assert chi_square < freedom + 5 * math.sqrt(2 * freedom)


def test_a_draw_never_lands_on_probability_zero() -> None:
    probabilities = np.array([0.0, 0.1, 0.0, 0.9, 0.0])
    generator = torch.Generator().manual_seed(0)
    assert {draw(probabilities, generator) for _ in range(300)} == {1, 3}


def test_row_seeds_are_unrelated() -> None:
    assert row_seed(7, 0) == 7
    seeds = {row_seed(seed, row) for seed in range(50) for row in range(50)}
    assert len(seeds) == 2500
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": -0.1}, "temperature must be 0"),
        ({"temperature": math.nan}, "temperature"),
        ({"temperature": math.inf}, "temperature"),
        ({"top_k": 0}, "top_k must be at least 1"),
        ({"top_p": 0.0}, "top_p must be above 0"),
        ({"top_p": 1.01}, "top_p"),
        ({"min_p": -0.1}, "min_p must be from 0"),
        ({"min_p": 1.1}, "min_p"),
        ({"max_new_tokens": -1}, "max_new_tokens"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be from 0.01 to 100"),
        ({"repetition_penalty": 1e300}, "repetition_penalty"),
        ({"repetition_penalty": math.nan}, "repetition_penalty"),
    ],
)
def test_invalid_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SamplingSettings(**changes)


@pytest.mark.parametrize("spread", [0.01, 1.0, 6.0])
@pytest.mark.parametrize(
    "changes",
    [
        {"top_p": 0.95},
        {"top_p": 0.2, "temperature": 0.7},
        {"top_k": 50, "top_p": 0.9},
        {"min_p": 0.05, "top_p": 0.99},
    ],
    ids=str,
)
def test_large_vocabularies(spread: float, changes: dict[str, Any]) -> None:
    """Only a part of a large vocabulary is sorted; with many ties, as in half precision."""
    generator = torch.Generator().manual_seed(5)
    logits = (spread * torch.randn(1, 3000, generator=generator)).bfloat16().float()
    s = SamplingSettings(**changes)
    expected = reference(logits[0].tolist(), s)
    np.testing.assert_allclose(token_probabilities(logits, s)[0].numpy(), expected, atol=1e-12)


def test_a_choice_has_the_models_own_log_probability() -> None:
    logits = torch.randn(50, generator=torch.Generator().manual_seed(2)) * 3
    exact = logits.double().log_softmax(dim=-1)
    for s in (SamplingSettings(temperature=0.0), SamplingSettings(temperature=0.5, top_p=0.9)):
        token, logprob = choose(logits.numpy(), s, torch.Generator().manual_seed(1))
        assert logprob == pytest.approx(float(exact[token]), abs=1e-12)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_are_refused(broken: float) -> None:
    logits = np.zeros(9, dtype=np.float32)
    logits[4] = broken
    with pytest.raises(EtudeError, match="not finite numbers"):
        choose(logits, SamplingSettings(), torch.Generator())


BAD_VALUES = [
    ({"temperature": "0.7"}, "temperature must be a number, not 0.7"),
    ({"temperature": None}, "temperature must be a number"),
    ({"temperature": 10**400}, "temperature is too large"),
    ({"top_p": True}, "top_p must be a number"),
    ({"top_k": 2.5}, "top_k must be a whole number"),
    ({"max_new_tokens": "many"}, "max_new_tokens must be a whole number"),
    ({"max_new_tokens": None}, "max_new_tokens must be a whole number"),
]


@pytest.mark.parametrize(("changes", "message"), BAD_VALUES, ids=range(len(BAD_VALUES)))
def test_values_of_another_kind_get_one_line(changes: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        changed(None, changes)


def test_numbers_of_other_libraries_are_numbers() -> None:
    actual = changed(
        None,
        {"temperature": np.float32(0.5), "top_k": np.int64(3), "top_p": 1, "max_new_tokens": np.int32(4)},
    )
    assert actual == SamplingSettings(temperature=0.5, top_k=3, top_p=1.0, max_new_tokens=4)
    assert [type(value) for value in (actual.temperature, actual.top_k, actual.top_p)] == [float, int, float]


def test_changes_by_name() -> None:
    assert changed(None, {"top_k": 3}) == SamplingSettings(temperature=0.8, top_p=0.95, top_k=3)
    assert changed(SamplingSettings(min_p=0.1), {"top_p": 0.5}) == SamplingSettings(min_p=0.1, top_p=0.5)
    assert changed(None, {}) == USUAL_SAMPLING
    with pytest.raises(TypeError, match="no setting 'temprature': temperature, top_k"):
        changed(None, {"temprature": 1.0})
    with pytest.raises(InputError, match="by name, such as max_new_tokens=50"):
        changed(50, {})


@pytest.mark.parametrize("seed", [0, 7, 2**64 - 1, -1, -(2**63), np.int64(5)])
def test_seeds_that_a_generator_takes(seed: int) -> None:
    torch.Generator().manual_seed(require_seed(seed))


BAD_SEEDS = [2**64, -(2**63) - 1, 99999999999999999999, 10**5000, 1.0, None, "3", True]


@pytest.mark.parametrize("seed", BAD_SEEDS, ids=range(len(BAD_SEEDS)))
def test_other_seeds_get_one_line(seed: Any) -> None:
    with pytest.raises(InputError, match="seed must be") as caught:
        require_seed(seed)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


@settings(max_examples=100)
@given(logits=logit_rows, penalty=st.sampled_from([0.5, 1.0, 1.1, 1.7, 30.0]), data=st.data())
def test_the_repetition_penalty_is_that_of_transformers(
    logits: list[float], penalty: float, data: st.DataObject
) -> None:
    from transformers import RepetitionPenaltyLogitsProcessor

    seen = data.draw(st.lists(st.integers(0, len(logits) - 1), min_size=1, max_size=8))
    theirs = RepetitionPenaltyLogitsProcessor(penalty)(
        torch.tensor([seen]), torch.tensor([logits], dtype=torch.float64)
    )
    np.testing.assert_allclose(penalised(np.array(logits), set(seen), penalty), theirs[0].numpy(), rtol=1e-12)


def test_a_penalty_by_hand() -> None:
    """0.6 becomes 0.3 and -0.2 becomes -0.4; unseen tokens stay, and so do reported log-probabilities."""
    logits = np.array([0.6, 0.5, -0.2, -0.3], dtype=np.float32)
    greedy = SamplingSettings(temperature=0.0, repetition_penalty=2.0)
    np.testing.assert_allclose(
        penalised(logits.astype(np.float64), {0, 2}, 2.0), [0.3, 0.5, -0.4, -0.3], atol=1e-7
    )
    own = np.log(np.exp(logits[1]) / np.exp(logits.astype(np.float64)).sum())
    assert choose(logits, greedy, torch.Generator(), seen=[0, 2]) == (1, pytest.approx(own))
    assert choose(logits, greedy, torch.Generator(), seen=[])[0] == 0
    assert choose(logits, greedy, torch.Generator(), seen=[0, 1, 2], allowed=np.array([2, 3]))[0] == 3


def test_a_choice_among_some_tokens_has_their_odds() -> None:
    """0.1 and 0.3 of all are 1/4 and 3/4 of the allowed tokens; within five standard deviations over 4,000 draws."""
    logits = np.log(np.array([0.4, 0.1, 0.2, 0.3])).astype(np.float32)
    generator = torch.Generator().manual_seed(4)
    allowed = np.array([1, 3])
    actual = [choose(logits, SamplingSettings(), generator, allowed=allowed)[0] for _ in range(4_000)]
    assert set(actual) == {1, 3}
    assert abs(actual.count(1) / 4_000 - 0.25) < 5 * math.sqrt(0.25 * 0.75 / 4_000)
    only = SamplingSettings(top_k=1)
    assert choose(logits, only, generator, allowed=allowed) == (3, pytest.approx(math.log(0.3), abs=1e-6))
