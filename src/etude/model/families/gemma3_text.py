"""Gemma 3, text only (Gemma Team 2025): five layers that see a window of positions for each one that sees all.

Norms stand before and after each sublayer and multiply by 1 + weight; queries and keys are normalised; embeddings are
multiplied by the root of the width. The layers with a window rotate by angles of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from etude.errors import InputError
from etude.model.families.contract import Family, State
from etude.model.families.gguf_form import ROPE_KEYS, GgufForm
from etude.model.families.hugging_face import (
    every_nth,
    is_number,
    layers_at_interval,
    positive_count,
    renamed,
    require_values,
    rope_config_from_hf,
    rope_config_to_hf,
    rope_parameters,
    width_and_heads,
)
from etude.model.families.llama import GATED_REASON
from etude.model.families.sizes import gated_inner_size, require_heads_divide_width, transformer_sizes
from etude.untrusted import shown

if TYPE_CHECKING:
    from etude.model.config import ModelConfig

PATTERN = 6
"""Every sixth layer sees all positions."""
LONGEST_WINDOW = 512
"""Positions that a sliding layer of a new network sees at most, as in Gemma 3 1B."""
LAYERS_OF_27B = 62
FULL, SLIDING = "full_attention", "sliding_attention"
_DEFAULTS = {
    "num_key_value_heads": 4,
    "head_dim": 256,
    "max_position_embeddings": 131_072,
    "rope_theta": 1_000_000.0,
    "tie_word_embeddings": True,
}
"""Of the class in transformers, where they are not those of Llama."""
_SAVED = {
    "attention_output_layernorm": "post_attention_layernorm",
    "post_attention_layernorm": "pre_feedforward_layernorm",
    "mlp_output_layernorm": "post_feedforward_layernorm",
}
"""Saved names of norms, by the network's: Llama calls the norm before its MLP post_attention_layernorm."""


def config_to_hf(config: ModelConfig) -> dict[str, Any]:
    """Return the fields of a Gemma 3 config.json, for transformers 4 and 5.

    Older readers take the angles of sliding layers from `rope_local_base_freq` and the kinds of layers from
    `sliding_window_pattern`; transformers 5 takes them from `rope_parameters` and `layer_types`.
    """
    values = rope_config_to_hf(config) | {
        "hidden_activation": config.hidden_act,
        "head_dim": config.head_dim,
        "query_pre_attn_scalar": config.query_pre_attn_scalar or config.head_dim,
        "layer_types": [SLIDING if sliding else FULL for sliding in config.sliding_layers],
        "sliding_window": config.sliding_window or None,
        "rope_local_base_freq": config.rope_local_base_freq,
        "rope_parameters": {
            FULL: rope_parameters(config),
            SLIDING: {"rope_type": "default", "rope_theta": config.rope_local_base_freq},
        },
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
        "use_bidirectional_attention": False,
        # Without it pad_token_id would default to 0, and transformers would never train that token's embedding.
        "pad_token_id": None,
    }
    del values["hidden_act"]
    pattern = every_nth(tuple(not sliding for sliding in config.sliding_layers))
    return values if pattern is None else values | {"sliding_window_pattern": pattern}


def config_from_hf(values: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of `ModelConfig` that a Gemma 3 config.json describes."""
    for name in ("attn_logit_softcapping", "final_logit_softcapping"):
        if values.get(name) is not None:
            raise InputError(
                f"config.json sets {name} = {shown(values[name])}, which is not supported: Gemma 3 has null"
            )
    require_values(values, {"use_bidirectional_attention": False})
    by_kind = values.get("rope_parameters") or {}
    if not isinstance(by_kind, dict) or not by_kind.keys() <= {FULL, SLIDING}:
        raise InputError(f"rope_parameters in config.json must have the entries {FULL} and {SLIDING} alone")
    general = {**_DEFAULTS, **values, "rope_parameters": by_kind.get(FULL), "layer_types": None}
    fields = rope_config_from_hf(general)
    sliding = _sliding_layers(values, fields["num_hidden_layers"])
    return fields | {
        "hidden_act": values.get("hidden_activation") or "gelu_pytorch_tanh",
        "query_pre_attn_scalar": values.get("query_pre_attn_scalar", 256),
        "rope_local_base_freq": _local_theta(by_kind.get(SLIDING) or {}, values),
        "sliding_layers": sliding,
        "sliding_window": values.get("sliding_window", 4096) or 0,
    }


def _sliding_layers(values: Mapping[str, Any], layers: Any) -> tuple[bool, ...]:
    """Return for each layer whether it has a window: `layer_types`, else by `sliding_window_pattern`."""
    kinds = values.get("layer_types")
    if kinds is None:
        pattern = positive_count(values, "sliding_window_pattern", PATTERN)
        return tuple(not full for full in layers_at_interval(layers, pattern))
    if not isinstance(kinds, list) or any(kind not in (FULL, SLIDING) for kind in kinds):
        raise InputError(
            f"layer_types in config.json must be a list of {FULL} and {SLIDING}, not {shown(kinds)}"
        )
    return tuple(kind == SLIDING for kind in kinds)


def _local_theta(entry: Any, values: Mapping[str, Any]) -> float:
    """Return the base of the angles of sliding layers, from its entry in `rope_parameters` or the older key."""
    if not isinstance(entry, dict) or entry.get("rope_type", "default") != "default":
        raise InputError(
            "config.json asks for scaled rotary positions in sliding layers, which is not supported"
        )
    theta = entry.get("rope_theta", values.get("rope_local_base_freq", 10_000.0))
    if not is_number(theta):
        raise InputError(f"rope_local_base_freq in config.json must be a number, not {shown(theta)}")
    return float(theta)


def to_saved(state: State, config: ModelConfig) -> State:
    """Convert tensors to Gemma's names."""
    return renamed(state, _SAVED)


def from_saved(state: State, config: ModelConfig) -> State:
    """Convert tensors to the network's names."""
    return renamed(state, {saved: name for name, saved in _SAVED.items()})


def sizes(dims: Mapping[str, Any], inner_size: int) -> dict[str, Any]:
    """Return the sizes of a new network: every sixth layer, or the last of fewer, sees all positions.

    The others see a quarter of the context, and no more than :data:`LONGEST_WINDOW`.
    """
    values = transformer_sizes(dims, inner_size)
    chosen = values | dict(dims)
    layers, context = int(chosen["num_hidden_layers"]), int(chosen["max_position_embeddings"])
    full = layers_at_interval(layers, min(PATTERN, layers))
    return values | {
        "query_pre_attn_scalar": chosen["head_dim"],
        "sliding_layers": tuple(not layer for layer in full),
        "sliding_window": max(1, min(LONGEST_WINDOW, context // 4)),
    }


def query_scale(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return `query_pre_attn_scalar`: the size of a head; width / heads for Gemma 3 27B, known by its layers."""
    if values["num_hidden_layers"] != LAYERS_OF_27B:
        return {"query_pre_attn_scalar": values["head_dim"]}
    width, heads = width_and_heads(values, "hidden_size", "num_attention_heads")
    return {"query_pre_attn_scalar": width // heads}


FAMILY = Family(
    name="gemma3_text",
    architecture="Gemma3ForCausalLM",
    fixed={
        "norm": "rmsnorm",
        "norm_placement": "both",
        "zero_centered_norm": True,
        "scale_embedding": True,
        "position": "rope",
        "mlp": "gated",
        "qk_norm": True,
        "mlp_bias": False,
    },
    free=frozenset(
        {"rope_scaling", "rope_local_base_freq", "query_pre_attn_scalar", "sliding_layers", "sliding_window"}
    ),
    style={"hidden_act": "gelu_pytorch_tanh", "attention_bias": False, "tie_word_embeddings": True},
    tokenizer_pattern="llama3",
    config_to_hf=config_to_hf,
    config_from_hf=config_from_hf,
    to_saved=to_saved,
    from_saved=from_saved,
    check=require_heads_divide_width,
    sizes=sizes,
    inner_size=gated_inner_size,
    inner_size_reason=GATED_REASON,
    gguf=GgufForm(
        architecture="gemma3",
        keys={
            **ROPE_KEYS,
            "sliding_window": "attention.sliding_window",
            "sliding_window_pattern": "attention.sliding_window_pattern",
            "rope_local_base_freq": "rope.freq_base_swa",
        },
        optional=frozenset({"sliding_window_pattern", "rope_local_base_freq"}),
        derived=query_scale,
    ),
)
