"""Generation against the simplest loop: the whole context is read again for every token."""

from __future__ import annotations

from collections.abc import Collection

import pytest
import torch

from etude.errors import EtudeError, InputError
from etude.generate.engine import Generation, generate, stream
from etude.generate.sampling import SamplingSettings, draw, row_seed, token_probabilities
from etude.model.language_model import LanguageModel
from networks import EVERY, make_config, make_network, make_tokens

SETTINGS = SamplingSettings(temperature=0.9, top_k=40, top_p=0.97, max_new_tokens=30)


@pytest.fixture(params=EVERY)
def network(request: pytest.FixtureRequest) -> LanguageModel:
    return make_network(make_config(request.param), 4)


@torch.no_grad()
def plain(
    model: LanguageModel, prompt: list[int], settings: SamplingSettings, stop_ids: Collection[int], seed: int
) -> Generation:
    """Without cache or batch: the sliding rule as the tokens that are read."""
    most = model.config.max_position_embeddings
    context, tokens, logprobs = prompt[-most:], [], []
    generator = torch.Generator().manual_seed(seed)
    while len(tokens) < settings.max_new_tokens:
        if len(context) > most:
            context = context[-(most // 2) :]
        logits = model(torch.tensor([context]))[:, -1]
        token = draw(token_probabilities(logits, settings)[0].numpy(), generator)
        if token in stop_ids:
            return Generation(tokens, logprobs, "eos")
        logprobs.append(float(logits.double().log_softmax(-1)[0, token]))
        tokens.append(token)
        context.append(token)
    return Generation(tokens, logprobs, "length")


def assert_same(actual: Generation, expected: Generation) -> None:
    assert actual.token_ids == expected.token_ids
    assert actual.finish_reason == expected.finish_reason
    assert actual.logprobs == pytest.approx(expected.logprobs, abs=1e-4)


@pytest.mark.parametrize("stop_ids", [(), {5, 11}])
def test_a_batch_equals_each_prompt_alone_without_a_cache(
    network: LanguageModel, stop_ids: Collection[int]
) -> None:
    prompts = [make_tokens(1, count, count)[0].tolist() for count in (3, 1, 17, 3)]
    together = generate(network, prompts, SETTINGS, stop_ids=stop_ids, seed=11)
    for row, prompt in enumerate(prompts):
        assert_same(together[row], plain(network, prompt, SETTINGS, stop_ids, row_seed(11, row)))
    reordered = generate(
        network, prompts[::-1], SETTINGS, stop_ids=stop_ids, seed=[row_seed(11, row) for row in (3, 2, 1, 0)]
    )
    for actual, expected in zip(reordered[::-1], together, strict=True):
        assert_same(actual, expected)


def test_the_end_of_text_token_ends_a_row_and_is_not_returned(network: LanguageModel) -> None:
    full = generate(network, [[1, 2, 3], [4]], SETTINGS, stop_ids=(), seed=2)
    end = full[0].token_ids[12]
    for cut, whole in zip(
        generate(network, [[1, 2, 3], [4]], SETTINGS, stop_ids={end}, seed=2), full, strict=True
    ):
        length = whole.token_ids.index(end) if end in whole.token_ids else 30
        assert cut.token_ids == whole.token_ids[:length]
        assert cut.logprobs == pytest.approx(whole.logprobs[:length], abs=1e-4)
        assert cut.finish_reason == ("eos" if length < 30 else "length")


@pytest.mark.parametrize("length", [47, 48, 60])
def test_sliding_beyond_the_context(network: LanguageModel, length: int) -> None:
    """Rows reach the end of the 48 positions at different steps, some more than once."""
    settings = SamplingSettings(max_new_tokens=70)
    prompts = [make_tokens(1, length)[0].tolist(), [1, 2]]
    results = generate(network, prompts, settings, stop_ids=(), seed=3)
    for row, prompt in enumerate(prompts):
        assert_same(results[row], plain(network, prompt, settings, (), row_seed(3, row)))


def test_stopping_at_the_end_of_the_context(network: LanguageModel) -> None:
    settings = SamplingSettings(max_new_tokens=70)
    stopped = generate(network, [[1, 2], [3] * 48], settings, stop_ids=(), seed=3, at_context_end="stop")
    assert [result.finish_reason for result in stopped] == ["context", "context"]
    # The network reads 48 tokens; the one after them is its last prediction.
    assert [len(result.token_ids) for result in stopped] == [47, 1]
    going_on = generate(network, [[1, 2], [3] * 48], settings, stop_ids=(), seed=3)
    assert [r.token_ids for r in stopped] == [going_on[0].token_ids[:47], going_on[1].token_ids[:1]]
    with pytest.raises(InputError, match="49 tokens and the model reads 48"):
        generate(network, [[3] * 49], settings, stop_ids=(), at_context_end="stop")


def test_streaming_gives_the_same_tokens(network: LanguageModel) -> None:
    expected = generate(network, [[1, 2, 3]], SETTINGS, stop_ids={5}, seed=8)[0]
    assert list(stream(network, [1, 2, 3], SETTINGS, stop_ids={5}, seed=8)) == expected.token_ids


def test_the_callback_receives_each_token(network: LanguageModel) -> None:
    received: list[tuple[int, int]] = []
    results = generate(
        network, [[1], [2]], SETTINGS, stop_ids=(), on_token=lambda row, token: received.append((row, token))
    )
    for row, result in enumerate(results):
        assert [token for where, token in received if where == row] == result.token_ids
    assert received[:2] == [(0, results[0].token_ids[0]), (1, results[1].token_ids[0])]


def test_a_stream_keeps_gradients_enabled_between_tokens(network: LanguageModel) -> None:
    tokens = stream(network, [1], SETTINGS, stop_ids=())
    next(tokens)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    network(make_tokens(1, 4)).sum().backward()
    assert next(tokens) >= 0


def test_the_global_generator_is_not_used(network: LanguageModel) -> None:
    torch.manual_seed(1)
    first = generate(network, [[1]], SETTINGS, stop_ids=(), seed=2)
    state = torch.get_rng_state()
    torch.manual_seed(99)
    second = generate(network, [[1]], SETTINGS, stop_ids=(), seed=2)
    assert first == second
    torch.manual_seed(1)
    assert torch.equal(state, torch.get_rng_state())


def test_greedy_takes_the_most_likely_token(network: LanguageModel) -> None:
    settings = SamplingSettings(temperature=0.0, max_new_tokens=5)
    actual = generate(network, [[1, 2]], settings, stop_ids=())[0].token_ids
    context = [1, 2]
    for token in actual:
        assert token == int(network(torch.tensor([context]))[0, -1].argmax())
        context.append(token)


def test_no_prompts_and_no_tokens(network: LanguageModel) -> None:
    none = SamplingSettings(max_new_tokens=0)
    assert generate(network, [[1]], none, stop_ids=()) == [Generation([], [], "length")]
    assert generate(network, [], SETTINGS, stop_ids=()) == []
    with pytest.raises(InputError, match="prompt is empty"):
        generate(network, [[1], []], SETTINGS, stop_ids=())
    with pytest.raises(ValueError, match="2 seeds for 1 prompts"):
        generate(network, [[1]], SETTINGS, stop_ids=(), seed=[1, 2])


def test_weights_that_are_not_finite_are_reported(network: LanguageModel) -> None:
    with torch.no_grad():
        network.unembedding()[0].fill_(torch.nan)
    with pytest.raises(EtudeError, match="not finite numbers"):
        generate(network, [[1]], SETTINGS, stop_ids=())
