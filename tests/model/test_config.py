"""Configurations: presets, errors, and round trips through config.json."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.errors import InputError
from etude.model.config import preset
from etude.model.hf_config import config_from_hf, config_to_hf
from networks import EVERY, make_config

SIZES: dict[str, Any] = {"vocab_size": 64, "hidden_size": 64}


@pytest.mark.parametrize("name", EVERY)
def test_config_json_survives_a_round_trip(name: str) -> None:
    config = make_config(name, bos_token_id=3, eos_token_id=5, initializer_range=0.03)
    assert config_from_hf(config_to_hf(config)) == config


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_rope_is_written_for_old_and_new_readers(name: str) -> None:
    written = config_to_hf(make_config(name, rope_theta=500.0))
    assert written["rope_theta"] == written["rope_parameters"]["rope_theta"] == 500.0
    for spared in ("rope_theta", "rope_parameters"):
        rest = {key: value for key, value in written.items() if key != spared}
        assert config_from_hf(rest).rope_theta == 500.0


def test_gpt2_is_written_for_converters_too() -> None:
    written = config_to_hf(make_config("gpt2"))
    assert written["n_ctx"] == written["n_positions"] == 48
    assert written["attn_pdrop"] == written["resid_pdrop"] == written["embd_pdrop"] == 0


def test_presets_have_the_switches_of_their_family() -> None:
    llama, qwen3 = preset("llama", **SIZES), preset("qwen3", **SIZES)
    gpt2, mlp = preset("gpt2", **SIZES), preset("mlp", **SIZES)
    assert llama.attention_bias
    assert llama.mlp_bias
    assert qwen3.qk_norm
    assert not qwen3.attention_bias
    assert not qwen3.mlp_bias
    assert (gpt2.norm, gpt2.position, gpt2.mlp, gpt2.hidden_act) == (
        "layernorm",
        "learned",
        "plain",
        "gelu_new",
    )
    assert gpt2.tie_word_embeddings
    assert mlp.context_size == 8
    assert llama.intermediate_size % 32 == 0
    assert llama.intermediate_size >= 8 * 64 / 3


@pytest.mark.parametrize(
    ("name", "dims", "message"),
    [
        ("bert", {}, "no model family 'bert'.*llama, qwen3, gpt2, mlp"),
        ("llama", {"hiden_size": 3}, "'hiden_size' is not a setting"),
        ("llama", {"hidden_size": 65, "num_attention_heads": 4}, "hidden_size 65 .* multiple of 4"),
        ("llama", {"num_attention_heads": 4, "num_key_value_heads": 3}, "num_key_value_heads 3"),
        ("llama", {"hidden_size": 60, "num_attention_heads": 4}, "head_dim is 15: .* even number"),
        ("llama", {"num_hidden_layers": 0}, "num_hidden_layers must be a whole number of at least 1"),
        ("llama", {"vocab_size": 0}, "vocab_size"),
        ("llama", {"num_hidden_layers": 10**9}, "num_hidden_layers 1000000000 is impossible"),
        ("llama", {"qk_norm": True}, "qk_norm = True cannot be saved as a llama folder.*qwen3, olmo2.* can"),
        (
            "qwen3",
            {"mlp_bias": True},
            "mlp_bias = True cannot be saved as a qwen3 folder.*llama, gpt2, mlp, gpt_neox.* can",
        ),
        ("llama", {"norm": "layernorm"}, "norm = 'layernorm' .* gpt2, gpt_neox.* can"),
        ("gpt2", {"position": "rope"}, "position = 'rope' .* llama, qwen3, gpt_neox, olmo2.* can"),
        ("gpt2", {"num_attention_heads": 4, "num_key_value_heads": 2}, "gpt2 folder has one kv head"),
        ("gpt2", {"attention_bias": False}, "attention_bias = False"),
        ("llama", {"hidden_act": "sine"}, "hidden_act 'sine' is unknown"),
        ("llama", {"eos_token_id": 64}, "eos_token_id 64 is outside the vocabulary of 64"),
        ("llama", {"rope_theta": -1.0}, "rope_theta must be a number above 0"),
        ("llama", {"context_size": 4}, "context_size = 4 cannot be saved as a llama folder.*; mlp can"),
        ("gpt_neox", {"partial_rotary_factor": 1.5}, "partial_rotary_factor must be above 0"),
        (
            "gpt_neox",
            {"partial_rotary_factor": 0.01},
            "rotated part of each head is 0: .* even number above 0",
        ),
        ("olmo2", {"head_dim": 24}, "an olmo2 folder has head_dim ="),
        ("gpt_neox", {"num_attention_heads": 4, "num_key_value_heads": 2}, "gpt_neox folder has one kv head"),
        ("mlp", {"context_size": 999}, "context_size 999 is more than"),
        ("mlp", {"eos_token_id": None}, "needs eos_token_id"),
        ("mlp", {"num_hidden_layers": 2}, "one hidden layer"),
    ],
)
def test_the_impossible_is_refused_in_one_line(name: str, dims: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        preset(name, **(SIZES | dims))
    assert "\n" not in str(caught.value)


def test_sizes_must_be_given() -> None:
    with pytest.raises(InputError, match="vocab_size must be given"):
        preset("llama", hidden_size=64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "mamba"}, "model_type 'mamba' is not supported"),
        ({"use_sliding_window": True}, "sliding-window"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1.0}}, "type 'yarn'.*linear and llama3"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1.0}}, "rope_scaling .* lacks 'factor'"),
        ({"rope_scaling": {"type": "linear", "factor": 0}}, "factor .* above 0, not 0"),
        ({"rope_scaling": {"type": "linear", "factor": "2"}}, "factor .* above 0, not 2"),
        ({"rope_scaling": {"type": ["linear"], "factor": 2}}, "rotary positions of type"),
        (
            {
                "rope_parameters": {"rope_type": "linear", "factor": 2.0},
                "rope_scaling": {"type": "linear", "factor": 4.0},
            },
            "contradict each other",
        ),
        (
            {
                "rope_parameters": {
                    "rope_type": "llama3",
                    "factor": 8,
                    "low_freq_factor": 4,
                    "high_freq_factor": 4,
                }
            },
            "high_freq_factor must be above",
        ),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial rotary"),
        ({"rope_parameters": [1]}, "must be an object"),
        ({"rope_parameters": None, "rope_theta": "many"}, "rope_theta"),
        ({"hidden_size": "64"}, "whole number"),
        ({"vocab_size": None}, "vocab_size .* whole number"),
        ({"vocab_size": 1e9}, "vocab_size .* whole number"),
        ({"attention_bias": "yes"}, "attention_bias .* true or false"),
        ({"hidden_act": 7}, "hidden_act .* name"),
        ({"num_attention_heads": 0}, "at least 1"),
    ],
)
def test_foreign_config_json_is_refused_in_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        config_from_hf(config_to_hf(make_config("llama")) | change)


def test_a_missing_size_is_named() -> None:
    values = config_to_hf(make_config("llama"))
    del values["hidden_size"]
    with pytest.raises(InputError, match="lacks 'hidden_size'"):
        config_from_hf(values)


def test_token_ids_outside_the_vocabulary_and_lists_of_them() -> None:
    """transformers writes 50256 into a tiny GPT-2, and several end tokens into chat models."""
    values = config_to_hf(make_config("gpt2")) | {"bos_token_id": 50256, "eos_token_id": [7, 8]}
    config = config_from_hf(values)
    assert (config.bos_token_id, config.eos_token_id) == (None, 7)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


@settings(max_examples=300)
@given(st.data(), st.sampled_from(["llama", "qwen3", "gpt2", "qwen2", "smollm3", "gemma3_text", "mlp"]))
def test_no_config_json_can_crash_the_reader(data: st.DataObject, name: str) -> None:
    values = config_to_hf(make_config(name))
    key = data.draw(st.sampled_from(sorted(values)))
    values[key] = data.draw(_json)
    with suppress(InputError):
        assert config_from_hf(values).validate()
