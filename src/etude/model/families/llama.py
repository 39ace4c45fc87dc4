"""Llama (Touvron et al. 2023): RMSNorm, rotary positions, a gated MLP, grouped heads.

The network uses its tensor names, so nothing is converted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from etude.errors import InputError
from etude.model.families.contract import Family
from etude.model.families.gguf_form import GgufForm
from etude.model.families.hugging_face import rope_config_from_hf, rope_config_to_hf
from etude.model.families.sizes import gated_inner_size, require_heads_divide_width

if TYPE_CHECKING:
    from etude.model.config import ModelConfig

GATED_REASON = "8/3 of the width, in 32s: a gated MLP then costs as much as a plain one of 4 widths"


def config_to_hf(config: ModelConfig) -> dict[str, Any]:
    """Return the fields of a Llama config.json."""
    values = rope_config_to_hf(config) | {"head_dim": config.head_dim}
    return values | {"mlp_bias": config.mlp_bias, "pretraining_tp": 1}


def config_from_hf(values: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of `ModelConfig` that a Llama config.json describes."""
    if values.get("pretraining_tp", 1) not in (None, 1):
        raise InputError("config.json asks for pretraining_tp other than 1, which is not supported")
    return rope_config_from_hf(values) | {"mlp_bias": values.get("mlp_bias", False)}


FAMILY = Family(
    name="llama",
    architecture="LlamaForCausalLM",
    fixed={"norm": "rmsnorm", "position": "rope", "mlp": "gated", "qk_norm": False},
    free=frozenset({"rope_scaling"}),
    style={"attention_bias": True, "mlp_bias": True},
    tokenizer_pattern="llama3",
    config_to_hf=config_to_hf,
    config_from_hf=config_from_hf,
    check=require_heads_divide_width,
    inner_size=gated_inner_size,
    inner_size_reason=GATED_REASON,
    gguf=GgufForm(
        architecture="llama",
        flags={"attention_bias": "blk.0.attn_q.bias", "mlp_bias": "blk.0.ffn_up.bias"},
        paired={"self_attn.q_proj": "num_attention_heads", "self_attn.k_proj": "num_key_value_heads"},
    ),
)
