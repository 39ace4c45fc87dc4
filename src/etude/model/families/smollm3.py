"""SmolLM3 (Hugging Face 2025): Llama's layers, of which every fourth rotates nothing (NoPE).

A layer without rotary positions knows the order of tokens from the causal mask and from the other layers (Yang et al.
2025, "RoPE to NoPE and Back Again").
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from etude.errors import InputError
from etude.model.families.contract import Family
from etude.model.families.gguf_form import GgufForm
from etude.model.families.hugging_face import (
    every_nth,
    layers_at_interval,
    positive_count,
    rope_config_from_hf,
    rope_config_to_hf,
)
from etude.model.families.llama import GATED_REASON
from etude.model.families.sizes import gated_inner_size, transformer_sizes
from etude.untrusted import shown

if TYPE_CHECKING:
    from etude.model.config import ModelConfig

INTERVAL = 4
"""Every fourth layer rotates nothing."""
_DEFAULTS = {
    "num_key_value_heads": 4,
    "max_position_embeddings": 32768,
    "rope_theta": 2_000_000.0,
    "tie_word_embeddings": True,
}
"""Of the class in transformers, where they are not those of Llama."""


def config_to_hf(config: ModelConfig) -> dict[str, Any]:
    """Return the fields of a SmolLM3 config.json."""
    values = rope_config_to_hf(config) | {
        "head_dim": config.head_dim,
        "mlp_bias": config.mlp_bias,
        "no_rope_layers": [int(rotary) for rotary in config.rotary_layers],  # 1: with rotary positions
        "use_sliding_window": False,
        "sliding_window": None,
        "pad_token_id": None,  # the class's default lies outside a small vocabulary
    }
    interval = every_nth(tuple(not rotary for rotary in config.rotary_layers))
    return values if interval is None else values | {"no_rope_layer_interval": interval}


def config_from_hf(values: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of `ModelConfig` that a SmolLM3 config.json describes."""
    fields = rope_config_from_hf({**_DEFAULTS, **values})
    layers = fields["num_hidden_layers"]
    return fields | {
        "mlp_bias": values.get("mlp_bias", False),
        "rotary_layers": _rotary_layers(values, layers),
    }


def _rotary_layers(values: Mapping[str, Any], layers: Any) -> tuple[bool, ...]:
    """Return for each layer whether it has rotary positions: `no_rope_layers`, else by `no_rope_layer_interval`."""
    flags = values.get("no_rope_layers")
    if flags is None:
        interval = positive_count(values, "no_rope_layer_interval", INTERVAL)
        return tuple(not without for without in layers_at_interval(layers, interval))
    if not isinstance(flags, list) or any(flag not in (0, 1) for flag in flags):
        raise InputError(f"no_rope_layers in config.json must be a list of 0 and 1, not {shown(flags)}")
    # transformers reads as many entries as there are layers.
    return tuple(bool(flag) for flag in flags[:layers]) if isinstance(layers, int) else ()  # refused later


def sizes(dims: Mapping[str, Any], inner_size: int) -> dict[str, Any]:
    """Return the sizes of a new network: every fourth layer rotates nothing."""
    values = transformer_sizes(dims, inner_size)
    layers = int(dims.get("num_hidden_layers", values["num_hidden_layers"]))
    unrotated = layers_at_interval(layers, INTERVAL)
    return values | {"rotary_layers": tuple(not without for without in unrotated)}


FAMILY = Family(
    name="smollm3",
    architecture="SmolLM3ForCausalLM",
    fixed={"norm": "rmsnorm", "position": "rope", "mlp": "gated", "qk_norm": False},
    free=frozenset({"rope_scaling", "rotary_layers"}),
    style={"attention_bias": False, "mlp_bias": False, "tie_word_embeddings": True},
    tokenizer_pattern="llama3",
    config_to_hf=config_to_hf,
    config_from_hf=config_from_hf,
    sizes=sizes,
    inner_size=gated_inner_size,
    inner_size_reason=GATED_REASON,
    gguf=GgufForm(
        architecture="smollm3",
        flags={"attention_bias": "blk.0.attn_q.bias", "mlp_bias": "blk.0.ffn_up.bias"},
        paired={"self_attn.q_proj": "num_attention_heads", "self_attn.k_proj": "num_key_value_heads"},
    ),
)
