"""Attention within a window: against its definition, in documents, caches and patterns, and where layers differ."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from etude.errors import InputError
from etude.model.attention import CAUSAL, QUERIES_AT_ONCE, Visibility, document_mask, within_window
from etude.model.cache import Cache
from etude.model.config import ModelConfig, preset
from etude.model.decoding import Decoding
from etude.model.hf_config import config_from_hf, config_to_hf
from etude.model.transformer import Transformer
from etude.watch.tapped_forward import run_with_taps
from networks import make_config, make_network, make_tokens

CLOSE = {"atol": 2e-5, "rtol": 0.0}
CPU = torch.device("cpu")


def seen_by(visibility: Visibility, count: int) -> Tensor:
    """Return which of ``count`` positions each of as many queries sees."""
    mask = torch.ones(count, count, dtype=torch.bool).tril()[None, None]
    return mask if visibility.mask is None else visibility.mask


def by_definition(window: int, ids: list[int], lengths: list[int] | None = None) -> list[list[bool]]:
    """Query i sees key j of its document if 0 <= i - j < window."""
    return [
        [0 <= query - key < window and ids[key] == ids[query] for key in range(len(ids))]
        for query in range(len(ids))
    ]


@pytest.mark.parametrize("window", [1, 2, 5, 11, 12, 13])
def test_a_query_sees_the_window_in_its_document(window: int) -> None:
    together, apart = [0] * 12, [4] * 3 + [9] * 7 + [1] * 2
    plain = within_window(CAUSAL, window, None, 12, CPU)
    assert (plain is CAUSAL) == (window >= 12)  # then the fused causal kernels are used
    assert seen_by(plain, 12)[0, 0].tolist() == by_definition(window, together)
    documents = Visibility(causal=False, mask=document_mask(torch.tensor([apart, together])))
    mask = seen_by(within_window(documents, window, None, 12, CPU), 12)
    assert mask[0, 0].tolist() == by_definition(window, apart)
    assert mask[1, 0].tolist() == by_definition(window, together)


def test_in_a_cache_with_rows_of_different_lengths() -> None:
    cache = Cache([2, 6], 20)
    keys = torch.arange(9)
    positions = cache.positions(3, CPU)  # 2 to 4, and 6 to 8
    earlier = Visibility(causal=False, mask=(keys <= positions[:, :, None])[:, None])
    mask = within_window(earlier, 3, cache, 3, CPU).mask
    assert mask is not None
    for row, length in enumerate([2, 6]):
        for ahead in range(3):
            place = length + ahead
            assert mask[row, 0, ahead].nonzero().flatten().tolist() == [
                max(0, key) for key in range(place - 2, place + 1)
            ]


@torch.no_grad()
@pytest.mark.parametrize("in_bf16", [False, True])
@pytest.mark.parametrize("apart", [False, True], ids=["together", "apart"])
def test_a_change_beyond_the_window_changes_nothing(apart: bool, in_bf16: bool) -> None:
    """One sliding layer: a token reaches the next window - 1 predictions; of two layers, twice as many."""
    for layers in (1, 2):
        config = make_config(
            "gemma3_text", num_hidden_layers=layers, sliding_layers=(True,) * layers, sliding_window=5
        )
        model, tokens = make_network(config), make_tokens(1, 40)
        documents = torch.tensor([[0] * 20 + [1] * 20]) if apart else None
        changed = tokens.clone()
        changed[0, 9] = (changed[0, 9] + 1) % 61
        with torch.autocast("cpu", torch.bfloat16, enabled=in_bf16):
            before, after = (model(ids, document_ids=documents) for ids in (tokens, changed))
        differs = (before != after).any(-1)[0].nonzero().flatten()
        assert differs.tolist() == list(range(9, 9 + layers * 4 + 1))


@torch.no_grad()
@pytest.mark.parametrize("name", ["gemma3_text", "gemma3_text-untied-bias"])
def test_the_pattern_is_zero_outside_the_window_and_nowhere_inside(name: str) -> None:
    config = make_config(name)
    model, inputs = make_network(config), make_tokens(2, 30)
    documents = torch.tensor([[0] * 11 + [1] * 19, [0] * 30])
    opened = run_with_taps(model, inputs, document_ids=documents)
    for layer in range(config.num_hidden_layers):
        pattern = opened[f"model.layers.{layer}.self_attn.pattern"]
        window = config.sliding_window if config.sliding_layers[layer] else 30
        for row in range(2):
            visible = torch.tensor(by_definition(window, documents[row].tolist()))
            assert torch.equal(pattern[row] > 0, visible.expand_as(pattern[row]))
    assert config.sliding_layers == (True, True, False)


@torch.no_grad()
@pytest.mark.parametrize("apart", [False, True], ids=["together", "apart"])
def test_in_bf16_blocks_it_is_that_of_fp32(apart: bool) -> None:
    """Rows of several blocks; the window begins and ends within them."""
    count = QUERIES_AT_ONCE + 60
    config = make_config("gemma3_text", max_position_embeddings=count, sliding_window=100)
    model, inputs = make_network(config), make_tokens(1, count)
    documents = torch.tensor([[0] * 150 + [1] * (count - 150)]) if apart else None
    exact = model(inputs, document_ids=documents)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(inputs, document_ids=documents).float()
    assert (rough - exact).norm() < 0.03 * exact.norm()
    wider = make_network(config.replace(sliding_window=90))
    assert (wider(inputs, document_ids=documents) - exact).norm() > 0.03 * exact.norm()


@torch.no_grad()
@pytest.mark.parametrize("window", [1, 2, 7, 29, 30, 31])
@pytest.mark.parametrize("lengths", [[6, 6], [3, 11]], ids=str)
def test_decoding_far_beyond_the_window(window: int, lengths: list[int]) -> None:
    config = make_config("gemma3_text", sliding_window=window)
    model = make_network(config, 3)
    assert isinstance(model, Transformer)
    tokens = make_tokens(2, 40)
    expected = model(tokens)
    plain, fast, traced = (model.new_cache(2, 40) for _ in range(3))
    for cache in (plain, fast, traced):
        model(tokens[:, : max(lengths)], cache=cache)
        cache.rewind(lengths)
    decoding, compiled = Decoding(model), Decoding(model, compiled=True)
    for _ in range(24):
        places = torch.tensor(plain.lengths)
        following = tokens[torch.arange(2), places]
        wanted = expected[torch.arange(2), places]
        torch.testing.assert_close(model(following[:, None], cache=plain)[:, 0], wanted, **CLOSE)
        torch.testing.assert_close(decoding.step(following, fast), wanted, **CLOSE)
        reached = torch.arange(max(traced.lengths) + 3)
        logits = compiled.traced_step(following, places, reached, traced)
        torch.testing.assert_close(logits, wanted, **CLOSE)
        traced.advance(1)


def test_a_new_network_has_layers_of_both_kinds() -> None:
    def kinds(family: str, layers: int, context: int = 256) -> ModelConfig:
        return preset(
            family, vocab_size=64, hidden_size=64, num_hidden_layers=layers, max_position_embeddings=context
        )

    assert [not sliding for sliding in kinds("gemma3_text", 13).sliding_layers] == [
        layer in (5, 11) for layer in range(13)
    ]
    assert kinds("gemma3_text", 3).sliding_layers == (True, True, False)
    assert kinds("gemma3_text", 1).sliding_layers == (False,)
    assert kinds("gemma3_text", 3).sliding_window == 64
    assert kinds("gemma3_text", 3, 32_768).sliding_window == 512
    assert [not rotary for rotary in kinds("smollm3", 9).rotary_layers] == [
        layer in (3, 7) for layer in range(9)
    ]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("gemma3_text", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping = 50.0"),
        ("gemma3_text", {"final_logit_softcapping": 30.0}, "final_logit_softcapping = 30.0"),
        ("gemma3_text", {"use_bidirectional_attention": True}, "use_bidirectional_attention = True"),
        ("gemma3_text", {"layer_types": ["full_attention"]}, "sliding_layers has 1 entries for 3 layers"),
        ("gemma3_text", {"layer_types": ["chunked_attention"] * 3}, "layer_types .* must be a list of"),
        ("gemma3_text", {"layer_types": 3}, "layer_types .* must be a list of"),
        ("gemma3_text", {"layer_types": None, "sliding_window_pattern": 0}, "sliding_window_pattern"),
        ("gemma3_text", {"sliding_window": None}, "sliding_window must be a whole number of at least 1"),
        ("gemma3_text", {"sliding_window": -4}, "sliding_window must be a whole number of at least 1"),
        ("gemma3_text", {"sliding_window": "512"}, "sliding_window .* whole number"),
        ("gemma3_text", {"query_pre_attn_scalar": 0}, "query_pre_attn_scalar must be"),
        ("gemma3_text", {"query_pre_attn_scalar": None}, "query_pre_attn_scalar"),
        ("gemma3_text", {"rope_parameters": {"rope_theta": 1e4}}, "must have the entries"),
        ("gemma3_text", {"rope_parameters": {"sliding_attention": 3}}, "scaled rotary positions in sliding"),
        (
            "gemma3_text",
            {"rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 2.0}}},
            "scaled rotary positions in sliding",
        ),
        ("gemma3_text", {"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "type 'yarn'"),
        ("gemma3_text", {"rope_parameters": None, "rope_local_base_freq": "x"}, "rope_local_base_freq"),
        ("gemma3_text", {"num_hidden_layers": 10**9, "layer_types": None}, "num_hidden_layers"),
        ("smollm3", {"use_sliding_window": True}, "sliding-window"),
        ("smollm3", {"layer_types": ["sliding_attention"] * 4}, "sliding-window"),
        ("smollm3", {"no_rope_layers": [1, 0]}, "rotary_layers has 2 entries for 4 layers"),
        ("smollm3", {"no_rope_layers": [1, 0, 2, 1]}, "no_rope_layers .* list of 0 and 1"),
        ("smollm3", {"no_rope_layers": "1110"}, "no_rope_layers .* list of 0 and 1"),
        ("smollm3", {"no_rope_layers": None, "no_rope_layer_interval": 0}, "no_rope_layer_interval"),
        ("qwen2", {"use_sliding_window": True}, "sliding-window"),
        ("qwen2", {"layer_types": ["sliding_attention"] * 3}, "sliding-window"),
        ("qwen2", {"layer_types": 3}, "sliding-window"),
    ],
)
def test_what_is_not_built_is_refused_in_one_line(name: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        config_from_hf(config_to_hf(make_config(name)) | change)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_layers_by_interval_are_read_where_no_list_names_them() -> None:
    """As published before there were lists."""
    gemma = config_to_hf(make_config("gemma3_text", num_hidden_layers=13))
    assert gemma.pop("sliding_window_pattern") == 6
    assert (
        config_from_hf(gemma | {"layer_types": None}).sliding_layers
        == make_config("gemma3_text", num_hidden_layers=13).sliding_layers
    )
    smollm3 = config_to_hf(make_config("smollm3", num_hidden_layers=9))
    assert smollm3.pop("no_rope_layer_interval") == 4
    assert (
        config_from_hf(smollm3 | {"no_rope_layers": None}).rotary_layers
        == make_config("smollm3", num_hidden_layers=9).rotary_layers
    )
    uneven = make_config("smollm3", num_hidden_layers=4, rotary_layers=(False, True, False, False))
    assert "no_rope_layer_interval" not in config_to_hf(uneven)
    # transformers reads as many entries as there are layers.
    longer = config_to_hf(uneven) | {"no_rope_layers": [0, 1, 0, 0, 1, 1]}
    assert config_from_hf(longer) == uneven
