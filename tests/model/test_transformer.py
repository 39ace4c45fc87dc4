"""Properties of every transformer: causality, documents, cache, shapes."""

from __future__ import annotations

import itertools

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor

from etude.model.attention import document_positions
from etude.model.language_model import LanguageModel
from networks import EVERY, TRANSFORMERS, make_config, make_network, make_tokens

CLOSE = {"atol": 2e-5, "rtol": 0.0}


@pytest.fixture(params=EVERY)
def network(request: pytest.FixtureRequest) -> LanguageModel:
    return make_network(make_config(request.param), 1)


@torch.no_grad()
def test_a_later_token_never_changes_an_earlier_prediction(network: LanguageModel) -> None:
    tokens = make_tokens(2, 24)
    before = network(tokens)
    for position in (0, 1, 11, 23):
        changed = tokens.clone()
        changed[:, position] = (changed[:, position] + 1) % 61
        after = network(changed)
        assert torch.equal(after[:, :position], before[:, :position])
        assert not torch.equal(after[:, position], before[:, position])


@torch.no_grad()
def test_rows_do_not_see_each_other(network: LanguageModel) -> None:
    tokens = make_tokens(3, 10)
    together = network(tokens)
    for row in range(3):
        torch.testing.assert_close(network(tokens[row : row + 1])[0], together[row], **CLOSE)


@torch.no_grad()
def test_documents_in_a_row_equal_separate_documents(network: LanguageModel) -> None:
    tokens = make_tokens(2, 24)
    borders = [[0, 7, 8, 24], [0, 13, 20, 24]]
    ids = torch.zeros(2, 24, dtype=torch.long)
    for row, ends in enumerate(borders):
        for number, (begin, end) in enumerate(itertools.pairwise(ends)):
            ids[row, begin:end] = number + 5 * row
    packed = network(tokens, document_ids=ids)
    for row, ends in enumerate(borders):
        for begin, end in itertools.pairwise(ends):
            alone = network(tokens[row : row + 1, begin:end])[0]
            torch.testing.assert_close(packed[row, begin:end], alone, **CLOSE)
    assert not torch.allclose(packed, network(tokens), atol=1e-2)


@torch.no_grad()
@pytest.mark.parametrize("split", [[24], [1] * 24, [5, 1, 1, 10, 7], [23, 1], [1, 23]], ids=str)
def test_cached_equals_uncached(network: LanguageModel, split: list[int]) -> None:
    tokens = make_tokens(2, 24)
    cache = network.new_cache(2, 24)
    pieces = [network(piece, cache=cache) for piece in tokens.split(split, dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), network(tokens), **CLOSE)
    assert cache.lengths == [24, 24]


@torch.no_grad()
def test_cached_rows_of_different_lengths(network: LanguageModel) -> None:
    """Right-padded prompts, rewound to their true lengths, continue as single prompts do."""
    tokens = make_tokens(3, 24)
    lengths = [9, 1, 14]
    cache = network.new_cache(3, 30)
    network(tokens[:, :14], cache=cache)
    cache.rewind(lengths)
    later = torch.stack([tokens[row, length : length + 6] for row, length in enumerate(lengths)])
    pieces = torch.cat([network(later[:, :1], cache=cache), network(later[:, 1:], cache=cache)], dim=1)
    for row, length in enumerate(lengths):
        alone = network(tokens[row : row + 1, : length + 6])[0, length:]
        torch.testing.assert_close(pieces[row], alone, **CLOSE)


@torch.no_grad()
def test_one_row_of_a_cache_and_a_selection_of_rows(network: LanguageModel) -> None:
    tokens = make_tokens(3, 12)
    cache = network.new_cache(3, 20)
    network(tokens[:, :8], cache=cache)
    row = cache.row(1)
    row.rewind([0])
    network(tokens[1:2, 3:6], cache=row)
    cache.lengths[1] = 3
    after = network(tokens[:, 8:9], cache=cache)[:, 0]
    torch.testing.assert_close(after[0], network(tokens[:1, :9])[0, -1], **CLOSE)
    rebuilt = torch.cat((tokens[1:2, 3:6], tokens[1:2, 8:9]), dim=1)
    torch.testing.assert_close(after[1], network(rebuilt)[0, -1], **CLOSE)
    remaining = cache.select([2, 0])
    assert remaining.lengths == [9, 9]
    further = network(tokens[[2, 0], 9:10], cache=remaining)[:, 0]
    torch.testing.assert_close(further, network(tokens[[2, 0], :10])[:, -1], **CLOSE)
    assert cache.lengths == [9, 4, 9]


@torch.no_grad()
def test_logits_are_the_head_of_the_hidden_states(network: LanguageModel) -> None:
    tokens = make_tokens(2, 9)
    weight, bias = network.unembedding()
    expected = network.hidden(tokens) @ weight.T + (0 if bias is None else bias)
    torch.testing.assert_close(network(tokens), expected, **CLOSE)
    assert weight.shape[0] == network.config.vocab_size


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_tokens_beyond_the_positions_are_refused(name: str) -> None:
    model = make_network(make_config(name, max_position_embeddings=8))
    with pytest.raises(ValueError, match="9 positions are more than max_position_embeddings 8"):
        model(make_tokens(1, 9))
    cache = model.new_cache(1, 100)
    model(make_tokens(1, 8), cache=cache)
    with pytest.raises(ValueError, match="8 \\+ 1 tokens are more than the cache holds"):
        model(make_tokens(1, 1), cache=cache)


def test_a_cache_has_its_own_rows_and_no_documents(network: LanguageModel) -> None:
    cache = network.new_cache(2, 8)
    with pytest.raises(ValueError, match="2 rows"):
        network(make_tokens(3, 2), cache=cache)
    with pytest.raises(ValueError, match="document_ids and a cache"):
        network(make_tokens(2, 2), cache=cache, document_ids=torch.zeros(2, 2, dtype=torch.long))
    with pytest.raises(ValueError, match="cannot rewind"):
        cache.rewind([1, 1])


def test_document_positions_restart() -> None:
    ids = torch.tensor([[4, 4, 4, 9, 9, 1], [0, 1, 2, 2, 2, 0]])
    assert document_positions(ids).tolist() == [[0, 1, 2, 0, 1, 0], [0, 0, 0, 1, 2, 0]]


def test_grouped_heads_are_repeated_heads() -> None:
    """Two kv heads for four query heads equal four kv heads with each repeated."""
    grouped = make_network(make_config("llama-grouped-tied"), 2)
    full = make_network(make_config("llama-grouped-tied", num_key_value_heads=4), 2)
    state = grouped.state_dict()
    for name in list(state):
        if ".k_proj." in name or ".v_proj." in name:
            heads: Tensor = state[name].unflatten(0, (2, 8))
            state[name] = heads.repeat_interleave(2, dim=0).flatten(0, 1)
    full.load_state_dict(state)
    tokens = make_tokens(2, 20)
    torch.testing.assert_close(grouped(tokens), full(tokens), **CLOSE)


def test_shapes_are_checked_in_tests(network: LanguageModel) -> None:
    with pytest.raises(TypeCheckError):
        network(make_tokens(2, 9)[0])
    with pytest.raises(TypeCheckError):
        network(make_tokens(2, 9).float())
    with pytest.raises(TypeCheckError):
        network(make_tokens(2, 9), document_ids=make_tokens(2, 8))


def test_bfloat16_runs(network: LanguageModel) -> None:
    tokens = make_tokens(1, 9)
    exact = network(tokens)
    rough = network.bfloat16()(tokens)
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - exact).abs().mean() < 0.1
