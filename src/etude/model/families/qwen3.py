"""Qwen3 (Yang et al. 2025): Llama's layers, with an RMSNorm over each head of queries and keys."""

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
    """Return the fields of a Qwen3 config.json."""
    return rope_config_to_hf(config) | {
        "head_dim": config.head_dim,
        "use_sliding_window": False,
        "sliding_window": None,
        "max_window_layers": config.num_hidden_layers,
    }


def config_from_hf(values: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of `ModelConfig` that a Qwen3 config.json describes."""
    return rope_config_from_hf(values, max_positions=32768, head_dim=128)


FAMILY = Family(
    name="qwen3",
    architecture="Qwen3ForCausalLM",
    fixed={"norm": "rmsnorm", "position": "rope", "mlp": "gated", "qk_norm": True, "mlp_bias": False},
    free=frozenset({"rope_scaling"}),
    style={"attention_bias": False},
    tokenizer_pattern="qwen2",
    config_to_hf=config_to_hf,
    config_from_hf=config_from_hf,
    inner_size=gated_inner_size,
    inner_size_reason=GATED_REASON,
    gguf=GgufForm(architecture="qwen3", flags={"attention_bias": "blk.0.attn_q.bias"}),
)
