"""Scores and greedy answers of a batch equal those of each prompt alone, read again for every token."""

from __future__ import annotations

import pytest
import torch

from etude.device import has_fast_bf16
from etude.generate.answers import Asked, answer
from etude.generate.engine import generate
from etude.generate.sampling import NotFinite, SamplingSettings
from etude.model.language_model import LanguageModel
from networks import EVERY, VOCAB, make_config, make_network, make_tokens

GREEDY = SamplingSettings(temperature=0.0, max_new_tokens=9)


def tokens(count: int, seed: int) -> list[int]:
    return make_tokens(1, count, seed)[0].tolist()


@torch.no_grad()
def plain_nats(model: LanguageModel, prompt: list[int], continuation: list[int]) -> float:
    most = model.config.max_position_embeddings
    assert len(prompt) + len(continuation) - 1 <= most
    logprobs = model(torch.tensor([[*prompt, *continuation]][:most]))[0].double().log_softmax(-1)
    return -sum(float(logprobs[len(prompt) - 1 + at, token]) for at, token in enumerate(continuation))


@pytest.mark.parametrize("name", EVERY)
def test_a_batch_equals_each_prompt_alone(name: str) -> None:
    model = make_network(make_config(name), 4).eval()
    rows = [
        Asked(tokens(prompt, prompt), [tokens(count, seed) for seed, count in enumerate(counts, 50)], most)
        for prompt, counts, most in (
            (7, (3, 5), 9),
            (1, (1, 4), 9),
            (20, (6,), 9),
            (5, (2, 2), 0),
            (5, (), 4),
        )
    ]
    stop_ids = {5, 11, 17, 23, 29}
    results = answer(model, rows, stop_ids)
    for row, result in zip(rows, results, strict=True):
        expected = [plain_nats(model, list(row.prompt), list(each)) for each in row.continuations]
        assert result.nats == pytest.approx(expected, abs=2e-4)
        if row.max_new_tokens:
            settings = SamplingSettings(temperature=0.0, max_new_tokens=row.max_new_tokens)
            (alone,) = generate(model, [row.prompt], settings, stop_ids=stop_ids)
            assert result.token_ids == alone.token_ids
            assert result.ended == (alone.finish_reason == "eos")
        else:
            assert not result.token_ids
            assert not result.ended


@pytest.mark.skipif(not has_fast_bf16("cpu"), reason="bf16 is not known to be fast here")
@pytest.mark.parametrize("name", ["llama-grouped-tied", "qwen3", "gpt2"])
def test_in_bf16_scores_are_near_those_in_fp32(name: str) -> None:
    model = make_network(make_config(name), 4).eval()
    rows = [Asked(tokens(count, count), [tokens(4, 1), tokens(2, 2)], 12) for count in (3, 11, 20)]
    exact, rounded = answer(model, rows, ()), answer(model, rows, (), "bf16")
    for one, other in zip(exact, rounded, strict=True):
        assert other.nats == pytest.approx(one.nats, rel=0.02)
        assert other.nats != one.nats
        assert len(other.token_ids) == 12


def test_rows_that_only_fit_alone_are_read_alone() -> None:
    """Padding makes room scarce: a long prompt with a short continuation beside a short one with a long."""
    model = make_network(make_config("llama"), 1).eval()
    rows = [Asked(tokens(46, 1), [tokens(2, 2)], 3), Asked(tokens(3, 3), [tokens(40, 4)], 0)]
    together = answer(model, rows, ())
    for row, result in zip(rows, together, strict=True):
        (alone,) = answer(model, [row], ())
        assert result.nats == pytest.approx(alone.nats, abs=1e-5)
        assert result.token_ids == alone.token_ids


def test_what_is_too_long_empty_or_not_finite_is_refused() -> None:
    model = make_network(make_config("llama"), 1).eval()
    with pytest.raises(ValueError, match="more than the cache holds"):
        answer(model, [Asked(tokens(47, 1), [tokens(8, 2)])], ())
    for empty in (Asked([], [[1]]), Asked([1], [[]])):
        with pytest.raises(ValueError, match="at least one token"):
            answer(model, [empty], ())
    with torch.no_grad():
        model.unembedding()[0][VOCAB - 1] = torch.nan
    with pytest.raises(NotFinite):
        answer(model, [Asked([1, 2], [[3]], 2)], ())
