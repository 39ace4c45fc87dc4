"""Qwen2 and Qwen2.5 (Yang et al. 2024): Llama's layers, with biases on queries, keys and values alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from etude.model.families.contract import Family
from etude.model.families.gguf_form import GgufForm
from etude.model.families.hugging_face import rope_config_from_hf, rope_config_to_hf
from etude.model.families.llama import GATED_REASON
from etude.model.families.sizes import gated_inner_size

if TYPE_CHECKING:
    from etude.model.config import ModelConfig


def config_to_hf(config: ModelConfig) -> dict[str, Any]:
    """Return the fields of a Qwen2 config.json. The biases are those of every Qwen2, so it has no field for them."""
    values = rope_config_to_hf(config) | {
        "head_dim": config.head_dim,
        "use_sliding_window": False,
        "sliding_window": None,
        "max_window_layers": config.num_hidden_layers,
    }
    del values["attention_bias"]
    return values


def config_from_hf(values: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of `ModelConfig` that a Qwen2 config.json describes."""
    fields = rope_config_from_hf(values, max_positions=32768)
    del fields["attention_bias"]
    return fields


FAMILY = Family(
    name="qwen2",
    architecture="Qwen2ForCausalLM",
    fixed={
        "norm": "rmsnorm",
        "position": "rope",
        "mlp": "gated",
        "qk_norm": False,
        "attention_bias": True,
        "attention_output_bias": False,
        "mlp_bias": False,
    },
    free=frozenset({"rope_scaling"}),
    tokenizer_pattern="qwen2",
    config_to_hf=config_to_hf,
    config_from_hf=config_from_hf,
    inner_size=gated_inner_size,
    inner_size_reason=GATED_REASON,
    gguf=GgufForm(architecture="qwen2"),
)
