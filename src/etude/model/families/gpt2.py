"""GPT-2 (Radford et al. 2019): LayerNorm, learned positions, a plain MLP, biases everywhere.

A GPT-2 folder stores weights as (in, out), and the query, key and value projections of a layer as one matrix
`attn.c_attn`, concatenated along its outputs.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from etude.model.families.adapter_form import AdapterForm
from etude.model.families.contract import Family, State
from etude.model.families.gguf_form import GgufForm
from etude.model.families.hugging_face import require_values, width_and_heads
from etude.model.families.sizes import plain_inner_size, require_heads_divide_width, require_plain_heads

if TYPE_CHECKING:
    from etude.model.config import ModelConfig

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
_MASKS = re.compile(r"(transformer\.)?h\.\d+\.attn\.(bias|masked_bias)")
"""Older files also store the causal mask, without the prefix."""


def config_to_hf(config: ModelConfig) -> dict[str, Any]:
    """Return the fields of a GPT-2 config.json.

    llama.cpp's converter requires `n_ctx`. Dropout is 0: Etude applies it in training only, by its own setting.
    """
    return {
        "vocab_size": config.vocab_size,
        "n_embd": config.hidden_size,
        "n_inner": config.intermediate_size,
        "n_layer": config.num_hidden_layers,
        "n_head": config.num_attention_heads,
        "n_positions": config.max_position_embeddings,
        "n_ctx": config.max_position_embeddings,
        "activation_function": config.hidden_act,
        "layer_norm_epsilon": config.rms_norm_eps,
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "reorder_and_upcast_attn": False,
        "add_cross_attention": False,
    }


def config_from_hf(values: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of `ModelConfig` that a GPT-2 config.json describes."""
    require_values(
        values,
        {"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False},
    )
    both_names = {
        short: short if short in values else long
        for short, long in (
            ("n_embd", "hidden_size"),
            ("n_head", "num_attention_heads"),
            ("n_layer", "num_hidden_layers"),
            ("n_positions", "max_position_embeddings"),
        )
    }
    width, heads = width_and_heads(values, both_names["n_embd"], both_names["n_head"])
    return {
        "vocab_size": values["vocab_size"],
        "hidden_size": width,
        "intermediate_size": values.get("n_inner") or plain_inner_size(width),
        "num_hidden_layers": values[both_names["n_layer"]],
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": width // heads,
        "max_position_embeddings": values[both_names["n_positions"]],
        "hidden_act": values.get("activation_function", "gelu_new"),
        "rms_norm_eps": values.get("layer_norm_epsilon", 1e-5),
        "tie_word_embeddings": values.get("tie_word_embeddings", True),
    }


def to_saved(state: State, config: ModelConfig) -> State:
    """Convert tensors to the names and layouts of a GPT-2 folder."""
    import torch

    saved = {theirs: state[ours] for ours, theirs in _OUTSIDE.items() if ours in state}
    for layer in range(config.num_hidden_layers):
        for kind in ("weight", "bias"):
            parts, fused = _fused_names(layer, kind)
            if parts[0] not in state:
                continue  # of another process, which saves other layers
            joined = torch.cat([state[part] for part in parts])
            saved[fused] = joined.T if kind == "weight" else joined
            for ours, theirs in _layer_names(layer, kind):
                saved[theirs] = state[ours].T if _is_matrix(ours) else state[ours]
    return saved


def from_saved(saved: State, config: ModelConfig) -> State:
    """Convert the tensors of a GPT-2 folder to the network's names and layouts."""
    state = {ours: saved[theirs] for ours, theirs in _OUTSIDE.items() if theirs in saved}
    for layer in range(config.num_hidden_layers):
        for kind in ("weight", "bias"):
            parts, fused = _fused_names(layer, kind)
            if fused not in saved:
                continue
            joined = saved[fused].T if kind == "weight" else saved[fused]
            state |= dict(zip(parts, joined.chunk(3), strict=True))
            for ours, theirs in _layer_names(layer, kind):
                state[ours] = saved[theirs].T if _is_matrix(ours) else saved[theirs]
    return state


def parameter_name(stored: str) -> str | None:
    """Return a stored name with its prefix; None for a mask, which is not a parameter."""
    if _MASKS.fullmatch(stored):
        return None
    if stored.startswith(("wte.", "wpe.", "h.", "ln_f.")):
        return f"transformer.{stored}"
    return stored


def _layer_names(layer: int, kind: str) -> list[tuple[str, str]]:
    """Return (network's name, saved name) of the tensors of a layer that map one to one; kind: "weight" or "bias"."""
    return [
        (f"model.layers.{layer}.{ours}.{kind}", f"transformer.h.{layer}.{theirs}.{kind}")
        for ours, theirs in (_NORMS | _MATRICES).items()
    ]


def _fused_names(layer: int, kind: str) -> tuple[list[str], str]:
    """Return the network's names of query, key and value of a layer, and the saved name of the three."""
    ours = [f"model.layers.{layer}.self_attn.{name}.{kind}" for name in _QUERY_KEY_VALUE]
    return ours, f"transformer.h.{layer}.attn.c_attn.{kind}"


def _is_matrix(name: str) -> bool:
    return name.endswith("_proj.weight")


def check(config: ModelConfig) -> None:
    """Raise InputError for heads that the format cannot express."""
    require_heads_divide_width(config)
    require_plain_heads(config)


FAMILY = Family(
    name="gpt2",
    architecture="GPT2LMHeadModel",
    fixed={
        "norm": "layernorm",
        "position": "learned",
        "mlp": "plain",
        "qk_norm": False,
        "attention_bias": True,
        "mlp_bias": True,
    },
    style={"hidden_act": "gelu_new", "tie_word_embeddings": True, "rms_norm_eps": 1e-5},
    tokenizer_pattern="gpt2",
    config_to_hf=config_to_hf,
    config_from_hf=config_from_hf,
    to_saved=to_saved,
    from_saved=from_saved,
    parameter_name=parameter_name,
    check=check,
    inner_size=plain_inner_size,
    inner_size_reason="4 times the width",
    adapters=AdapterForm(
        layers="transformer.h",
        names={f"self_attn.{name}": "attn.c_attn" for name in _QUERY_KEY_VALUE} | _MATRICES,
        transposed=True,
    ),
    gguf=GgufForm(
        architecture="gpt2",
        keys={
            "n_positions": "context_length",
            "n_embd": "embedding_length",
            "n_layer": "block_count",
            "n_inner": "feed_forward_length",
            "n_head": "attention.head_count",
            "layer_norm_epsilon": "attention.layer_norm_epsilon",
        },
        optional=frozenset(),
        transposed=frozenset({"attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"}),
    ),
)
