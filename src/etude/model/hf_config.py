"""config.json: how each family writes its sizes and switches, read and written without transformers."""

from __future__ import annotations

import sys
from typing import Any

from etude.errors import InputError
from etude.model.config import FIXED_SWITCHES, ModelConfig
from etude.untrusted import shown

ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gpt2": "GPT2LMHeadModel",
    "mlp": "EtudeMLPForCausalLM",
}

_ROPE_FAMILY_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
    "hidden_act",
    "attention_bias",
    "rms_norm_eps",
    "rope_theta",
)
_COMMON_FIELDS = ("tie_word_embeddings", "initializer_range", "bos_token_id", "eos_token_id")
_MLP_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "context_size",
    "direct_connections",
    "max_position_embeddings",
    "hidden_act",
)


def config_to_hf(config: ModelConfig) -> dict[str, Any]:
    """The config.json that the matching transformers class, and other readers of that format, load.

    Both `rope_theta` (transformers 4, MLX) and `rope_parameters` (transformers 5) are written: a reader that
    knows only one of them would otherwise take its default in silence and compute wrong logits. GPT-2 gets
    `n_ctx`, which llama.cpp's converter requires, and dropout 0, since no network here has dropout.
    """
    common: dict[str, Any] = {
        "architectures": [ARCHITECTURES[config.model_type]],
        "model_type": config.model_type,
        **{name: getattr(config, name) for name in _COMMON_FIELDS},
        "dtype": "float32",
        "torch_dtype": "float32",
        "use_cache": True,
    }
    if config.model_type == "gpt2":
        return common | _gpt2_to_hf(config)
    if config.model_type == "mlp":
        return common | {name: getattr(config, name) for name in _MLP_FIELDS}
    values = common | {name: getattr(config, name) for name in _ROPE_FAMILY_FIELDS}
    values["rope_parameters"] = {"rope_theta": config.rope_theta, "rope_type": "default"}
    values["attention_dropout"] = 0.0
    if config.model_type == "llama":
        values["mlp_bias"] = config.mlp_bias
        values["pretraining_tp"] = 1
    else:
        values |= {
            "use_sliding_window": False,
            "sliding_window": None,
            "max_window_layers": config.num_hidden_layers,
        }
    return values


def _gpt2_to_hf(config: ModelConfig) -> dict[str, Any]:
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


def config_from_hf(values: Any) -> ModelConfig:
    """The validated configuration that a config.json describes; InputError when no network here can be it.

    Left-out keys take the defaults of the transformers class. Dropout is ignored: it plays no part in what
    the network computes once trained. Token ids outside the vocabulary (transformers writes GPT-2's own even
    for tiny models) become None.
    """
    if not isinstance(values, dict):
        raise InputError("config.json must hold one JSON object")
    kind = values.get("model_type")
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise InputError(
            f"model_type {shown(repr(kind))} is not known here: only {known} folders can be loaded"
        )
    try:
        if kind == "gpt2":
            fields = _gpt2_from_hf(values)
        elif kind == "mlp":
            fields = _mlp_from_hf(values)
        else:
            fields = _rope_family_from_hf(kind, values)
    except KeyError as missing:
        raise InputError(f"config.json lacks {missing.args[0]!r}, which a {kind} model needs") from None
    vocab_size = fields["vocab_size"]
    fields["bos_token_id"] = _token_id(values.get("bos_token_id"), vocab_size)
    fields["eos_token_id"] = _token_id(values.get("eos_token_id"), vocab_size)
    fields["initializer_range"] = values.get("initializer_range", 0.02)
    _require_types(fields)
    return ModelConfig(**(FIXED_SWITCHES[kind] | {"model_type": kind} | fields)).validate()


_NUMBERS = ("rope_theta", "rms_norm_eps", "initializer_range")
_FLAGS = ("attention_bias", "mlp_bias", "tie_word_embeddings", "direct_connections")


def _require_types(fields: dict[str, Any]) -> None:
    """InputError when a value read from the file is of a kind that the field cannot be."""
    for name, value in fields.items():
        if name in _NUMBERS:
            kind, right = "a number", _is_number(value)
        elif name in _FLAGS:
            kind, right = "true or false", isinstance(value, bool)
        elif name == "hidden_act":
            kind, right = "a name", isinstance(value, str)
        else:
            kind, right = "a whole number", isinstance(value, int) and not isinstance(value, bool)
            right = right or (value is None and name in ("bos_token_id", "eos_token_id"))
        if not right:
            raise InputError(f"{name} in config.json must be {kind}, not {shown(value)}")
        if name in _NUMBERS:
            fields[name] = float(value)


def _is_number(value: Any) -> bool:
    """Whether the value is a finite number that fits a float."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) <= sys.float_info.max


def _rope_family_from_hf(kind: str, values: dict[str, Any]) -> dict[str, Any]:
    if values.get("use_sliding_window"):
        raise InputError("config.json asks for sliding-window attention, which is not built here")
    if values.get("pretraining_tp", 1) not in (None, 1):
        raise InputError("config.json asks for pretraining_tp other than 1, which is not built here")
    heads, width = values["num_attention_heads"], values["hidden_size"]
    if not isinstance(heads, int) or not isinstance(width, int) or heads < 1:
        raise InputError(f"num_attention_heads must be a whole number of at least 1, not {shown(heads)}")
    default_head_dim = 128 if kind == "qwen3" else width // heads
    return {
        "vocab_size": values["vocab_size"],
        "hidden_size": width,
        "intermediate_size": values["intermediate_size"],
        "num_hidden_layers": values["num_hidden_layers"],
        "num_attention_heads": heads,
        "num_key_value_heads": values.get("num_key_value_heads") or heads,
        "head_dim": values.get("head_dim") or default_head_dim,
        "max_position_embeddings": values.get("max_position_embeddings", 32768 if kind == "qwen3" else 2048),
        "hidden_act": values.get("hidden_act", "silu"),
        "attention_bias": values.get("attention_bias", False),
        "mlp_bias": values.get("mlp_bias", False),
        "rms_norm_eps": values.get("rms_norm_eps", 1e-6),
        "rope_theta": _rope_theta(values),
        "tie_word_embeddings": values.get("tie_word_embeddings", False),
    }


def _rope_theta(values: dict[str, Any]) -> float:
    """From `rope_parameters` (transformers 5), else `rope_theta`; scaled positions are refused."""
    parameters = values.get("rope_parameters") or {}
    scaling = values.get("rope_scaling") or {}
    for entry in (parameters, scaling):
        if not isinstance(entry, dict):
            raise InputError("rope_parameters in config.json must be an object")
        kind = entry.get("rope_type", entry.get("type", "default"))
        if kind != "default":
            raise InputError(
                f"config.json asks for rotary positions of type {shown(repr(kind))}: only 'default' is built"
            )
        if entry.get("partial_rotary_factor", 1.0) not in (None, 1, 1.0):
            raise InputError("config.json asks for partial rotary positions, which are not built here")
    theta = parameters.get("rope_theta", values.get("rope_theta", 10_000.0))
    if not _is_number(theta):
        raise InputError(f"rope_theta in config.json must be a number, not {shown(theta)}")
    return float(theta)


def _gpt2_from_hf(values: dict[str, Any]) -> dict[str, Any]:
    for name, needed in (
        ("scale_attn_weights", True),
        ("scale_attn_by_inverse_layer_idx", False),
        ("add_cross_attention", False),
    ):
        if bool(values.get(name, needed)) is not needed:
            raise InputError(f"config.json sets {name} = {shown(values[name])}, which is not built here")

    def either(short: str, long: str) -> Any:
        return values[short] if short in values else values[long]

    width, heads = either("n_embd", "hidden_size"), either("n_head", "num_attention_heads")
    if not isinstance(heads, int) or not isinstance(width, int) or heads < 1:
        raise InputError(f"n_head must be a whole number of at least 1, not {shown(heads)}")
    return {
        "vocab_size": values["vocab_size"],
        "hidden_size": width,
        "intermediate_size": values.get("n_inner") or 4 * width,
        "num_hidden_layers": either("n_layer", "num_hidden_layers"),
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": width // heads,
        "max_position_embeddings": either("n_positions", "max_position_embeddings"),
        "hidden_act": values.get("activation_function", "gelu_new"),
        "rms_norm_eps": values.get("layer_norm_epsilon", 1e-5),
        "tie_word_embeddings": values.get("tie_word_embeddings", True),
    }


def _mlp_from_hf(values: dict[str, Any]) -> dict[str, Any]:
    sizes = {name: values[name] for name in _MLP_FIELDS}
    return sizes | {"num_hidden_layers": 1, "num_attention_heads": 0, "num_key_value_heads": 0, "head_dim": 0}


def _token_id(value: Any, vocab_size: Any) -> int | None:
    """The first of several ids, None for one that the vocabulary does not have."""
    if isinstance(value, list):
        value = value[0] if value else None
    if not isinstance(value, int) or isinstance(value, bool) or not isinstance(vocab_size, int):
        return None
    return value if 0 <= value < vocab_size else None
