"""OLMo 2 (Team OLMo 2025, "2 OLMo 2 Furious", section 3): norms after the sublayers instead of before them, and a norm
over the whole query and key projections.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from etude.errors import InputError
from etude.model.families.contract import Family, State
from etude.model.families.hugging_face import renamed, rope_config_from_hf, rope_config_to_hf
from etude.model.families.llama import GATED_REASON
from etude.model.families.sizes import gated_inner_size

if TYPE_CHECKING:
    from etude.model.config import ModelConfig

_SAVED = {
    "attention_output_layernorm": "post_attention_layernorm",
    "mlp_output_layernorm": "post_feedforward_layernorm",
}
"""Saved names of norms, by the network's: Llama calls the norm before its MLP post_attention_layernorm."""


def config_to_hf(config: ModelConfig) -> dict[str, Any]:
    """Return the fields of an OLMo 2 config.json."""
    # Without it pad_token_id would default to 1, and transformers would never train that token's embedding.
    return rope_config_to_hf(config) | {"pad_token_id": None}


def config_from_hf(values: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of `ModelConfig` that an OLMo 2 config.json describes."""
    return rope_config_from_hf(values, eps=1e-5)


def to_saved(state: State, config: ModelConfig) -> State:
    """Convert tensors to OLMo 2's names."""
    return renamed(state, _SAVED)


def from_saved(state: State, config: ModelConfig) -> State:
    """Convert tensors to the network's names."""
    return renamed(state, {saved: name for name, saved in _SAVED.items()})


def check(config: ModelConfig) -> None:
    """Raise InputError where heads * head_dim is not the width: the format has no head_dim."""
    if config.num_attention_heads * config.head_dim != config.hidden_size:
        raise InputError(
            "an olmo2 folder has head_dim = hidden_size / num_attention_heads: leave head_dim out, or choose qwen3"
        )


FAMILY = Family(
    name="olmo2",
    architecture="Olmo2ForCausalLM",
    fixed={
        "norm": "rmsnorm",
        "norm_placement": "after",
        "position": "rope",
        "mlp": "gated",
        "qk_norm": True,
        "qk_norm_width": "projection",
        "mlp_bias": False,
    },
    free=frozenset({"norm_placement", "qk_norm_width", "rope_scaling"}),
    style={"attention_bias": False, "rms_norm_eps": 1e-5},
    tokenizer_pattern="llama3",
    config_to_hf=config_to_hf,
    config_from_hf=config_from_hf,
    to_saved=to_saved,
    from_saved=from_saved,
    check=check,
    inner_size=gated_inner_size,
    inner_size_reason=GATED_REASON,
)
