"""GLM-4 (Team GLM 2024; the 0414 models), added from outside: norms before and after each sublayer ("sandwich norms"),
and rotary positions that turn half of each head.

A GLM-4 folder keeps the gate and the up projection of an MLP as one matrix, and turns neighbouring pairs of a head
(x_2i, x_2i+1) where the network turns (x_i, x_i+R/2): the rows of the query and key projections are reordered.

Importing this file registers the family: ETUDE_PLUGINS=glm4.py etude train TEXT --model glm4
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from etude.errors import InputError
from etude.model.families import Family, register
from etude.model.families.contract import State
from etude.model.families.hugging_face import (
    ROPE_FIELDS,
    is_number,
    rope_from_hf,
    rope_parameters,
    width_and_heads,
)
from etude.model.families.sizes import gated_inner_size
from etude.untrusted import shown

if TYPE_CHECKING:
    from torch import Tensor

    from etude.model.config import ModelConfig

_SAVED = {
    "attention_output_layernorm": "post_self_attn_layernorm",
    "mlp_output_layernorm": "post_mlp_layernorm",
}
"""The network's name of a norm to the saved one."""
_NETWORK = {saved: name for name, saved in _SAVED.items()}
_TURNED = re.compile(r".*self_attn\.[qk]_proj\.weight")
"""The matrices whose rows are turned in pairs."""


def config_to_hf(config: ModelConfig) -> dict[str, Any]:
    """Return the fields of a GLM-4 config.json."""
    share = config.partial_rotary_factor
    values = {name: getattr(config, name) for name in ROPE_FIELDS} | {
        "head_dim": config.head_dim,
        "partial_rotary_factor": share,
        "rope_parameters": rope_parameters(config) | {"partial_rotary_factor": share},
        "attention_dropout": 0.0,
        "pad_token_id": None,  # the class's default lies outside a small vocabulary
    }
    return values if config.rope_scaling is None else values | {"rope_scaling": config.rope_scaling.to_hf()}


def config_from_hf(values: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of `ModelConfig` that a GLM-4 config.json describes."""
    if values.get("attention_bias", True):
        raise InputError(
            "config.json sets attention_bias = true without a bias of o_proj, which is not built here"
        )
    width, heads = width_and_heads(values, "hidden_size", "num_attention_heads")
    theta, scaling = rope_from_hf(values, partial=True)
    parameters = values.get("rope_parameters") or {}
    share = parameters.get("partial_rotary_factor", values.get("partial_rotary_factor", 0.5))
    if not is_number(share):
        raise InputError(f"partial_rotary_factor in config.json must be a number, not {shown(share)}")
    return {
        "vocab_size": values["vocab_size"],
        "hidden_size": width,
        "intermediate_size": values["intermediate_size"],
        "num_hidden_layers": values["num_hidden_layers"],
        "num_attention_heads": heads,
        "num_key_value_heads": values.get("num_key_value_heads", 2),
        "head_dim": values.get("head_dim", 128),
        "max_position_embeddings": values.get("max_position_embeddings", 131_072),
        "hidden_act": values.get("hidden_act", "silu"),
        "rms_norm_eps": values.get("rms_norm_eps", 1.5625e-7),
        "rope_theta": theta,
        "rope_scaling": scaling,
        "partial_rotary_factor": float(share),
        "tie_word_embeddings": values.get("tie_word_embeddings", False),
    }


def to_saved(state: State, config: ModelConfig) -> State:
    """Return the tensors under GLM-4's names: pairs of a head side by side, gate and up as one matrix."""
    import torch

    saved = {}
    for name, tensor in state.items():
        if _TURNED.fullmatch(name):
            tensor = _reordered(tensor, config, saved=True)
        if name.endswith("mlp.gate_proj.weight"):
            tensor = torch.cat((tensor, state[name.replace("gate_proj", "up_proj")]))  # (2 F, D)
        if not name.endswith("mlp.up_proj.weight"):
            saved[_renamed(name.replace("mlp.gate_proj", "mlp.gate_up_proj"), _SAVED)] = tensor
    return saved


def from_saved(saved: State, config: ModelConfig) -> State:
    """Return the tensors under the network's names."""
    state = {}
    for name, tensor in saved.items():
        if _TURNED.fullmatch(name):
            tensor = _reordered(tensor, config, saved=False)
        if name.endswith("mlp.gate_up_proj.weight"):
            for part, half in zip(("gate_proj", "up_proj"), tensor.chunk(2), strict=True):
                state[name.replace("gate_up_proj", part)] = half
        else:
            state[_renamed(name, _NETWORK)] = tensor
    return state


def _reordered(weight: Tensor, config: ModelConfig, *, saved: bool) -> Tensor:
    """Return the rows (H Dh, D) with the turned part of each head as pairs (``saved``), or as two halves."""
    import torch

    turned = config.rotary_dim
    heads = weight.unflatten(0, (-1, config.head_dim))  # (H, Dh, D)
    halves = heads[:, :turned].unflatten(1, (2, turned // 2) if saved else (turned // 2, 2))
    rows = halves.transpose(1, 2).flatten(1, 2)  # (H, R, D)
    return torch.cat((rows, heads[:, turned:]), dim=1).flatten(0, 1)


def _renamed(name: str, table: dict[str, str]) -> str:
    return ".".join(table.get(part, part) for part in name.split("."))


FAMILY = Family(
    name="glm4",
    architecture="Glm4ForCausalLM",
    fixed={
        "norm": "rmsnorm",
        "norm_placement": "both",
        "position": "rope",
        "mlp": "gated",
        "qk_norm": False,
        "attention_bias": False,
        "mlp_bias": False,
    },
    free=frozenset({"norm_placement", "partial_rotary_factor", "rope_scaling"}),
    style={"partial_rotary_factor": 0.5, "rms_norm_eps": 1.5625e-7},
    tokenizer_pattern="llama3",
    config_to_hf=config_to_hf,
    config_from_hf=config_from_hf,
    to_saved=to_saved,
    from_saved=from_saved,
    inner_size=gated_inner_size,
    inner_size_reason="8/3 of the width, in 32s: a gated MLP then costs what a plain one of 4 widths does",
)
register(FAMILY)
