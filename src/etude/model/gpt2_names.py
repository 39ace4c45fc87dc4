"""GPT-2's saved names and layouts, to and from the names that every network has here.

A GPT-2 folder keeps weights as (in, out) and the query, key and value projections of a layer as one matrix
`attn.c_attn`, side by side along its outputs.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

_OUTSIDE = {
    "model.embed_tokens.weight": "transformer.wte.weight",
    "model.embed_positions.weight": "transformer.wpe.weight",
    "model.norm.weight": "transformer.ln_f.weight",
    "model.norm.bias": "transformer.ln_f.bias",
    "lm_head.weight": "lm_head.weight",
}
_NORMS = {"input_layernorm": "ln_1", "post_attention_layernorm": "ln_2"}
_MATRICES = {"self_attn.o_proj": "attn.c_proj", "mlp.up_proj": "mlp.c_fc", "mlp.down_proj": "mlp.c_proj"}
_QUERY_KEY_VALUE = ("q_proj", "k_proj", "v_proj")

# Older files also hold the causal mask, and leave the prefix out.
_MASKS = re.compile(r"(transformer\.)?h\.\d+\.attn\.(bias|masked_bias)")


def _layer_names(layer: int, kind: str) -> list[tuple[str, str]]:
    """(name here, saved name) of what is saved one to one in a layer; kind is "weight" or "bias"."""
    return [
        (f"model.layers.{layer}.{here}.{kind}", f"transformer.h.{layer}.{saved}.{kind}")
        for here, saved in (_NORMS | _MATRICES).items()
    ]


def _fused_names(layer: int, kind: str) -> tuple[list[str], str]:
    here = [f"model.layers.{layer}.self_attn.{name}.{kind}" for name in _QUERY_KEY_VALUE]
    return here, f"transformer.h.{layer}.attn.c_attn.{kind}"


def _is_matrix(name: str) -> bool:
    return name.endswith("_proj.weight")


def to_gpt2_state(state: dict[str, Tensor], num_layers: int) -> dict[str, Tensor]:
    """The tensors of a network here, as a GPT-2 folder holds them."""
    saved = {theirs: state[ours] for ours, theirs in _OUTSIDE.items() if ours in state}
    for layer in range(num_layers):
        for kind in ("weight", "bias"):
            parts, fused = _fused_names(layer, kind)
            joined = torch.cat([state[part] for part in parts])
            saved[fused] = joined.T if kind == "weight" else joined
            for ours, theirs in _layer_names(layer, kind):
                saved[theirs] = state[ours].T if _is_matrix(ours) else state[ours]
    return saved


def from_gpt2_state(saved: dict[str, Tensor], num_layers: int) -> dict[str, Tensor]:
    """The inverse of `to_gpt2_state`."""
    state = {ours: saved[theirs] for ours, theirs in _OUTSIDE.items() if theirs in saved}
    for layer in range(num_layers):
        for kind in ("weight", "bias"):
            parts, fused = _fused_names(layer, kind)
            joined = saved[fused].T if kind == "weight" else saved[fused]
            state |= dict(zip(parts, joined.chunk(3), strict=True))
            for ours, theirs in _layer_names(layer, kind):
                state[ours] = saved[theirs].T if _is_matrix(ours) else saved[theirs]
    return state


def full_gpt2_name(name: str) -> str | None:
    """A saved name with its prefix; None for a mask, which is no parameter."""
    if _MASKS.fullmatch(name):
        return None
    if name.startswith(("wte.", "wpe.", "h.", "ln_f.")):
        return f"transformer.{name}"
    return name
