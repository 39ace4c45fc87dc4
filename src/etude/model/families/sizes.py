"""The default shape of a network (layers, heads, inner size) for a given width."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from etude.errors import InputError

if TYPE_CHECKING:
    from etude.model.config import ModelConfig


MOST_LAYERS = 2**12
"""Far above any real model: more are refused before a list has an entry for each."""


def gated_inner_size(width: int) -> int:
    """Return 8/3 of the width, rounded up to a multiple of 32: the cost of a plain MLP of 4 widths.

    Shazeer 2020, "GLU Variants Improve Transformer", section 2.
    """
    return -(-8 * width // 3 // 32) * 32


def plain_inner_size(width: int) -> int:
    """Return 4 widths (Vaswani et al. 2017)."""
    return 4 * width


def require_heads_divide_width(config: ModelConfig) -> None:
    """Raise InputError for a width that the heads do not divide."""
    heads, width = config.num_attention_heads, config.hidden_size
    if width % heads:
        raise InputError(
            f"hidden_size {width} is not divisible by num_attention_heads {heads}: choose a multiple of {heads}"
        )


def require_plain_heads(config: ModelConfig) -> None:
    """Raise InputError for grouped heads, or a head_dim of its own: some formats have neither."""
    heads = config.num_attention_heads
    if config.num_key_value_heads != heads or config.head_dim * heads != config.hidden_size:
        raise InputError(
            f"a {config.model_type} folder has one kv head for each head and head_dim = hidden_size / "
            "num_attention_heads: leave num_key_value_heads and head_dim out, or choose llama or qwen3"
        )


def transformer_sizes(dims: Mapping[str, Any], inner_size: int) -> dict[str, Any]:
    """Return defaults for the sizes that ``dims`` does not have.

    head_dim is 64 from width 512 on and 32 below; as many kv heads as heads; 4 layers; 256 positions.

    Raises:
        InputError: the heads do not divide the width.
    """
    width = int(dims["hidden_size"])
    head_dim = int(dims.get("head_dim", 0)) or (64 if width >= 512 else 32)
    heads = int(dims.get("num_attention_heads", 0)) or max(1, width // head_dim)
    if "head_dim" not in dims and width % heads:
        raise InputError(
            f"hidden_size {width} does not divide into {heads} attention heads: "
            f"choose a hidden_size that is a multiple of {heads}, or another num_attention_heads"
        )
    return {
        "intermediate_size": inner_size,
        "num_hidden_layers": 4,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": head_dim if "head_dim" in dims else width // heads,
        "max_position_embeddings": 256,
    }
