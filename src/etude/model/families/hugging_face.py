"""Conversion of config.json fields that several families share: rotary positions, sizes, unsupported options.

Names are Hugging Face's. The values come from strangers' files, so every one is checked.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from etude.errors import InputError
from etude.model.families.sizes import MOST_LAYERS
from etude.model.rope import RopeScaling
from etude.untrusted import shown

if TYPE_CHECKING:
    from etude.model.config import ModelConfig
    from etude.model.families.contract import State

ROPE_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
    "hidden_act",
    "attention_bias",
    "rms_norm_eps",
    "rope_theta",
)
"""Fields with the same name in config.json and `ModelConfig`, for families with rotary positions and RMSNorm."""


def is_number(value: Any) -> bool:
    """Return whether the value is a finite number that fits a float."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) <= sys.float_info.max


def require_values(values: Mapping[str, Any], needed: Mapping[str, Any]) -> None:
    """Raise InputError where config.json sets one of these switches to a value that is not supported."""
    for name, value in needed.items():
        if bool(values.get(name, value)) is not bool(value):
            raise InputError(f"config.json sets {name} = {shown(values[name])}, which is not supported")


def require_full_attention(values: Mapping[str, Any]) -> None:
    """Raise InputError where config.json limits the attention of a layer to a window."""
    kinds = values.get("layer_types") or []
    full = isinstance(kinds, list) and all(kind == "full_attention" for kind in kinds)
    if values.get("use_sliding_window") or not full:
        raise InputError("config.json asks for sliding-window attention, which is not supported")


def layers_at_interval(layers: Any, interval: int) -> tuple[bool, ...]:
    """Return for each layer whether it is the last of ``interval`` layers. ``layers`` is checked elsewhere."""
    count = layers if isinstance(layers, int) and 0 < layers <= MOST_LAYERS else 0
    return tuple((layer + 1) % interval == 0 for layer in range(count))


def every_nth(layers: tuple[bool, ...]) -> int | None:
    """Return the interval for which `layers_at_interval` returns ``layers``; None where there is none."""
    interval = layers.index(True) + 1 if True in layers else len(layers) + 1
    return interval if layers == layers_at_interval(len(layers), interval) else None


def positive_count(values: Mapping[str, Any], name: str, default: int) -> int:
    """Return a field of config.json that is a whole number of at least 1."""
    value = values.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"{name} in config.json must be a whole number of at least 1, not {shown(value)}")
    return value


def width_and_heads(values: Mapping[str, Any], width_key: str, heads_key: str) -> tuple[int, int]:
    """Return hidden_size and num_attention_heads, checked to be whole numbers that can be divided."""
    width, heads = values[width_key], values[heads_key]
    if not isinstance(heads, int) or not isinstance(width, int) or heads < 1:
        raise InputError(f"{heads_key} must be a whole number of at least 1, not {shown(heads)}")
    return width, heads


def renamed(state: State, table: Mapping[str, str]) -> State:
    """Return the tensors with the parts of their dotted names replaced by ``table``."""
    return {
        ".".join(table.get(part, part) for part in name.split(".")): value for name, value in state.items()
    }


def rope_config_to_hf(config: ModelConfig) -> dict[str, Any]:
    """Return the config.json fields that all families with rotary positions and RMSNorm write.

    Both `rope_theta` (transformers 4, MLX) and `rope_parameters` (transformers 5) are written: a program that knows
    only one of them would otherwise use its default silently and compute wrong logits.
    """
    values = {name: getattr(config, name) for name in ROPE_FIELDS}
    values["rope_parameters"] = rope_parameters(config)
    if config.rope_scaling is not None:
        values["rope_scaling"] = config.rope_scaling.to_hf()
    values["attention_dropout"] = 0.0
    return values


def rope_parameters(config: ModelConfig) -> dict[str, Any]:
    """Return `rope_parameters` in the format of transformers 5."""
    scaling = {"rope_type": "default"} if config.rope_scaling is None else config.rope_scaling.to_hf()
    return {"rope_theta": config.rope_theta, **scaling}


def rope_config_from_hf(
    values: Mapping[str, Any], *, max_positions: int = 2048, head_dim: int | None = None, eps: float = 1e-6
) -> dict[str, Any]:
    """Return the fields of `ModelConfig` that these families share. Missing keys take the given defaults."""
    require_full_attention(values)
    width, heads = width_and_heads(values, "hidden_size", "num_attention_heads")
    theta, scaling = rope_from_hf(values)
    return {
        "vocab_size": values["vocab_size"],
        "hidden_size": width,
        "intermediate_size": values["intermediate_size"],
        "num_hidden_layers": values["num_hidden_layers"],
        "num_attention_heads": heads,
        "num_key_value_heads": values.get("num_key_value_heads") or heads,
        "head_dim": values.get("head_dim") or (width // heads if head_dim is None else head_dim),
        "max_position_embeddings": values.get("max_position_embeddings", max_positions),
        "hidden_act": values.get("hidden_act", "silu"),
        "attention_bias": values.get("attention_bias", False),
        "rms_norm_eps": values.get("rms_norm_eps", eps),
        "rope_theta": theta,
        "rope_scaling": scaling,
        "tie_word_embeddings": values.get("tie_word_embeddings", False),
    }


def rope_from_hf(
    values: Mapping[str, Any], *, theta_key: str = "rope_theta", partial: bool = False
) -> tuple[float, RopeScaling | None]:
    """Return theta and scaling from `rope_parameters` (transformers 5), else from the older keys.

    Args:
        values: a config.json.
        theta_key: the older key that holds theta.
        partial: whether the family may rotate only a part of each head.
    """
    parameters = values.get("rope_parameters") or {}
    older = values.get("rope_scaling") or {}
    for entry in (parameters, older):
        if not isinstance(entry, dict):
            raise InputError("rope_parameters in config.json must be an object")
        if not partial and entry.get("partial_rotary_factor", 1.0) not in (None, 1, 1.0):
            raise InputError("config.json asks for partial rotary positions, which this family does not have")
    theta = parameters.get("rope_theta", values.get(theta_key, 10_000.0))
    if not is_number(theta):
        raise InputError(f"rope_theta in config.json must be a number, not {shown(theta)}")
    # A file of transformers 5 may have both entries, of which an older program may have changed only one.
    scalings = {RopeScaling.from_hf(entry, values) for entry in (parameters, older)} - {None}
    if len(scalings) > 1:
        raise InputError("rope_parameters and rope_scaling in config.json contradict each other: remove one")
    return float(theta), next(iter(scalings), None)
