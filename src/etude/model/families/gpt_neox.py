"""GPT-NeoX (Black et al. 2022), the family of Pythia: attention and MLP in parallel on the same residual stream, and
rotary positions on a part of each head.

A GPT-NeoX folder stores the query, key and value projections of a layer as one matrix, interleaved by head: the rows of
a head's query, its key, its value, then those of the next head.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from etude.errors import InputError
from etude.model.families.adapter_form import AdapterForm
from etude.model.families.contract import Family, State
from etude.model.families.hugging_face import is_number, rope_from_hf, rope_parameters, width_and_heads
from etude.model.families.sizes import plain_inner_size, require_plain_heads
from etude.untrusted import shown

if TYPE_CHECKING:
    from torch import Tensor

    from etude.model.config import ModelConfig

_SHARED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
    "hidden_act",
    "attention_bias",
)
_HEAD = "embed_out.weight"
_OUTSIDE = {
    "model.embed_tokens.weight": "gpt_neox.embed_in.weight",
    "model.norm.weight": "gpt_neox.final_layer_norm.weight",
    "model.norm.bias": "gpt_neox.final_layer_norm.bias",
    "lm_head.weight": _HEAD,
}
_LAYER = {
    "input_layernorm": "input_layernorm",
    "post_attention_layernorm": "post_attention_layernorm",
    "self_attn.o_proj": "attention.dense",
    "mlp.up_proj": "mlp.dense_h_to_4h",
    "mlp.down_proj": "mlp.dense_4h_to_h",
}
_NO_PARAMETER = re.compile(r"gpt_neox\.layers\.\d+\.attention\.(bias|masked_bias)")
"""Causal masks and tables in older files."""


def config_to_hf(config: ModelConfig) -> dict[str, Any]:
    """Return the fields of a GPT-NeoX config.json, for transformers 4 (`rotary_pct`) and 5 (`rope_parameters`)."""
    share = config.partial_rotary_factor
    values = {name: getattr(config, name) for name in _SHARED} | {
        "layer_norm_eps": config.rms_norm_eps,
        "use_parallel_residual": config.parallel_residual,
        "rotary_pct": share,
        "rotary_emb_base": config.rope_theta,
        "rope_parameters": rope_parameters(config) | {"partial_rotary_factor": share},
        "attention_dropout": 0.0,
        "hidden_dropout": 0.0,
    }
    return values if config.rope_scaling is None else values | {"rope_scaling": config.rope_scaling.to_hf()}


def config_from_hf(values: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of `ModelConfig` that a GPT-NeoX config.json describes."""
    width, heads = width_and_heads(values, "hidden_size", "num_attention_heads")
    theta, scaling = rope_from_hf(values, theta_key="rotary_emb_base", partial=True)
    parameters = values.get("rope_parameters") or {}
    share = parameters.get("partial_rotary_factor", values.get("rotary_pct", 0.25))
    if not is_number(share):
        raise InputError(f"rotary_pct in config.json must be a number, not {shown(share)}")
    return {
        "vocab_size": values["vocab_size"],
        "hidden_size": width,
        "intermediate_size": values["intermediate_size"],
        "num_hidden_layers": values["num_hidden_layers"],
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": width // heads,
        "max_position_embeddings": values.get("max_position_embeddings", 2048),
        "hidden_act": values.get("hidden_act", "gelu"),
        "attention_bias": values.get("attention_bias", True),
        "rms_norm_eps": values.get("layer_norm_eps", 1e-5),
        "rope_theta": theta,
        "rope_scaling": scaling,
        "partial_rotary_factor": float(share),
        "parallel_residual": values.get("use_parallel_residual", True),
        "tie_word_embeddings": values.get("tie_word_embeddings", False),
    }


def to_saved(state: State, config: ModelConfig) -> State:
    """Convert tensors to GPT-NeoX's names, with query, key and value interleaved by head."""
    saved = {theirs: state[ours] for ours, theirs in _OUTSIDE.items() if ours in state}
    for layer in range(config.num_hidden_layers):
        ours, theirs = f"model.layers.{layer}", f"gpt_neox.layers.{layer}"
        for kind in ("weight", "bias"):
            parts = [f"{ours}.self_attn.{name}_proj.{kind}" for name in "qkv"]
            if parts[0] in state:
                joined = _joined([state[part] for part in parts], config.head_dim)
                saved[f"{theirs}.attention.query_key_value.{kind}"] = joined
            saved |= {
                f"{theirs}.{saved_part}.{kind}": state[f"{ours}.{part}.{kind}"]
                for part, saved_part in _LAYER.items()
                if f"{ours}.{part}.{kind}" in state
            }
    return saved


def from_saved(saved: State, config: ModelConfig) -> State:
    """Convert the tensors of a GPT-NeoX folder to the network's names."""
    state = {ours: saved[theirs] for ours, theirs in _OUTSIDE.items() if theirs in saved}
    for layer in range(config.num_hidden_layers):
        ours, theirs = f"model.layers.{layer}", f"gpt_neox.layers.{layer}"
        for kind in ("weight", "bias"):
            fused = f"{theirs}.attention.query_key_value.{kind}"
            if fused in saved:
                for name, projection in zip("qkv", _split(saved[fused], config.head_dim), strict=True):
                    state[f"{ours}.self_attn.{name}_proj.{kind}"] = projection
            state |= {
                f"{ours}.{part}.{kind}": saved[f"{theirs}.{saved_part}.{kind}"]
                for part, saved_part in _LAYER.items()
                if f"{theirs}.{saved_part}.{kind}" in saved
            }
    return state


def _joined(parts: list[Tensor], head_dim: int) -> Tensor:
    """Interleave three tensors (H Dh, ...) by head into one (3 H Dh, ...)."""
    import torch

    heads = [part.reshape(-1, head_dim, *part.shape[1:]) for part in parts]  # (H, Dh, ...) each
    return torch.stack(heads, dim=1).reshape(-1, *parts[0].shape[1:])


def _split(joined: Tensor, head_dim: int) -> list[Tensor]:
    """Invert :func:`_joined`."""
    heads = joined.reshape(-1, 3, head_dim, *joined.shape[1:])  # (H, 3, Dh, ...)
    return [heads[:, part].reshape(-1, *joined.shape[1:]) for part in range(3)]


def parameter_name(stored: str) -> str | None:
    """Return the stored name; None for a mask or a table, which is not a parameter."""
    return None if _NO_PARAMETER.fullmatch(stored) else stored


FAMILY = Family(
    name="gpt_neox",
    architecture="GPTNeoXForCausalLM",
    fixed={"norm": "layernorm", "position": "rope", "mlp": "plain", "qk_norm": False, "mlp_bias": True},
    free=frozenset({"parallel_residual", "partial_rotary_factor", "rope_scaling"}),
    style={
        "hidden_act": "gelu",
        "rms_norm_eps": 1e-5,
        "parallel_residual": True,
        "partial_rotary_factor": 0.25,
    },
    tokenizer_pattern="gpt2",
    config_to_hf=config_to_hf,
    config_from_hf=config_from_hf,
    to_saved=to_saved,
    from_saved=from_saved,
    parameter_name=parameter_name,
    head_name=_HEAD,
    check=require_plain_heads,
    inner_size=plain_inner_size,
    inner_size_reason="4 times the width",
    adapters=AdapterForm(
        layers="gpt_neox.layers",
        names={f"self_attn.{name}_proj": "attention.query_key_value" for name in "qkv"}
        | {ours: theirs for ours, theirs in _LAYER.items() if "norm" not in ours},
        join=lambda parts, config: _joined(parts, config.head_dim),
        split=lambda joined, config: _split(joined, config.head_dim),
    ),
)
