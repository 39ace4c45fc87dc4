"""Scores against one full forward pass, and the windows against their description."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from etude.errors import InputError
from etude.generate import scoring as score
from etude.generate.scoring import first_beyond, score_sequences, score_tokens
from etude.model.language_model import LanguageModel
from networks import EVERY, make_config, make_network, make_tokens


@pytest.fixture(params=EVERY)
def network(request: pytest.FixtureRequest) -> LanguageModel:
    return make_network(make_config(request.param), 4)


@torch.no_grad()
def reference(model: LanguageModel, tokens: list[int], begin: int, position: int) -> float:
    """Return the log-probability of the token at `position`, given those from `begin` on."""
    logits = model(torch.tensor([tokens[begin:position]]))[0, -1].double()
    return float(logits.log_softmax(-1)[tokens[position]])


def test_a_text_within_the_context(network: LanguageModel) -> None:
    tokens = make_tokens(1, 30)[0].tolist()
    scores = score_tokens(network, tokens)
    expected = [reference(network, tokens, 0, position) for position in range(1, 30)]
    np.testing.assert_allclose(scores.logprobs, expected, atol=1e-5)


@pytest.mark.parametrize(("count", "context"), [(9, 1), (10, 2), (8, 7), (9, 8), (14, 8), (24, 7)])
def test_every_token_is_scored_once_with_half_a_context(
    network: LanguageModel, count: int, context: int
) -> None:
    tokens = make_tokens(1, count)[0].tolist()
    scores = score_tokens(network, tokens, context=context, batch_size=3)
    assert len(scores.logprobs) == count - 1
    for position in range(1, count):
        seen = [
            length
            for length in range(1, min(position, context) + 1)
            if np.isclose(
                reference(network, tokens, position - length, position),
                scores.logprobs[position - 1],
                atol=1e-5,
            )
        ]
        assert seen, position
        assert max(seen) >= min(position, context // 2)


def test_batches_do_not_matter(network: LanguageModel) -> None:
    texts = [make_tokens(1, count, count)[0].tolist() for count in (2, 90, 17, 49, 50, 3)]
    together = score_sequences(network, texts, batch_size=4)
    for text, scores in zip(texts, together, strict=True):
        np.testing.assert_allclose(
            scores.logprobs, score_tokens(network, text, batch_size=1).logprobs, atol=1e-5
        )


def test_a_large_vocabulary_is_projected_in_pieces(
    network: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = make_tokens(1, 70)[0].tolist()
    whole = score_tokens(network, tokens)
    monkeypatch.setattr(score, "_HEAD_ELEMENTS", 200)
    np.testing.assert_allclose(score_tokens(network, tokens).logprobs, whole.logprobs, atol=1e-5)


def test_texts_without_a_token_to_score_are_refused() -> None:
    model = make_network(make_config("llama"))
    with pytest.raises(InputError, match="nothing to score"):
        score_tokens(model, [1])
    with pytest.raises(InputError, match="from 1 to the model's 48"):
        score_tokens(model, [1, 2], context=49)


def test_only_requested_tokens_are_scored(network: LanguageModel) -> None:
    texts = [make_tokens(1, count, count)[0].tolist() for count in (2, 90, 17, 49, 50, 3)]
    firsts = [1, 80, 16, 1, 49, 2]
    whole = score_sequences(network, texts, batch_size=4)
    some = score_sequences(network, texts, batch_size=4, firsts=firsts)
    for first, all_of, part_of in zip(firsts, whole, some, strict=True):
        for name in ("logprobs", "credits", "confidences", "briers"):
            actual, expected = getattr(part_of, name), getattr(all_of, name)
            assert not actual[: first - 1].any()
            np.testing.assert_allclose(actual[first - 1 :], expected[first - 1 :], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("whole", "given", "first"),
    [
        ([1, 2, 3, 4], [1, 2], 2),  # a token ends where the context does
        ([1, 9, 4], [1, 2, 3], 1),  # 2 and 3 became part of 9
        ([1, 9], [1, 2], 1),  # as many tokens as the context, and still not certain
        ([9], [1, 2, 3], 0),
        ([1, 9, 3], [1, 2, 3], 1),  # what is alike again after the difference counts too
        ([1, 2], [], 0),
        ([1, 2], [1, 2], 2),  # no token of its own
    ],
)
def test_the_first_token_of_a_continuation(whole: list[int], given: list[int], first: int) -> None:
    assert first_beyond(whole, given) == first
