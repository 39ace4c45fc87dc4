"""Read and write config.json without transformers: the fields of all families. Each family adds its own."""

from __future__ import annotations

from typing import Any

from etude.errors import InputError
from etude.model.config import ModelConfig
from etude.model.families import family_named
from etude.model.families.hugging_face import is_number
from etude.registry import MODEL_FAMILIES
from etude.untrusted import shown

_COMMON_FIELDS = ("tie_word_embeddings", "initializer_range", "bos_token_id", "eos_token_id")


def config_to_hf(config: ModelConfig) -> dict[str, Any]:
    """Return the content of config.json that the matching transformers class, and other readers, load."""
    common: dict[str, Any] = {
        "architectures": [config.family.architecture],
        "model_type": config.model_type,
        **{name: getattr(config, name) for name in _COMMON_FIELDS},
        "dtype": "float32",
        "torch_dtype": "float32",
        "use_cache": True,
    }
    return common | config.family.config_to_hf(config)


def config_from_hf(values: Any) -> ModelConfig:
    """Return the validated configuration that a config.json describes.

    Missing keys take the defaults of the transformers class. Dropout is ignored: a trained network computes without
    it. Token ids outside the vocabulary become None (transformers writes GPT-2's own ids even for tiny models).

    Raises:
        InputError: the configuration cannot be built.
    """
    if not isinstance(values, dict):
        raise InputError("config.json must hold one JSON object")
    kind = values.get("model_type")
    try:
        family = family_named(kind if isinstance(kind, str) else "")
    except InputError:
        known = ", ".join(MODEL_FAMILIES.names())
        raise InputError(
            f"model_type {shown(repr(kind))} is not supported: only {known} folders can be loaded"
        ) from None
    try:
        fields = family.config_from_hf(values)
    except KeyError as missing:
        raise InputError(f"config.json lacks {missing.args[0]!r}, which a {kind} model needs") from None
    vocab_size = fields["vocab_size"]
    fields["bos_token_id"] = _token_id(values.get("bos_token_id"), vocab_size)
    fields["eos_token_id"] = _token_id(values.get("eos_token_id"), vocab_size)
    fields["initializer_range"] = values.get("initializer_range", 0.02)
    _require_types(fields)
    return ModelConfig(**(family.fixed_switches | {"model_type": kind} | fields)).validate()


_NUMBERS = (
    "rope_theta",
    "rope_local_base_freq",
    "rms_norm_eps",
    "initializer_range",
    "partial_rotary_factor",
)
_FLAGS = ("attention_bias", "mlp_bias", "tie_word_embeddings", "direct_connections", "parallel_residual")


def _require_types(fields: dict[str, Any]) -> None:
    """Raise InputError where a value from the file has the wrong type for its field."""
    for name, value in fields.items():
        if name in _NUMBERS:
            kind, right = "a number", is_number(value)
        elif name in _FLAGS:
            kind, right = "true or false", isinstance(value, bool)
        elif name in ("rope_scaling", "rotary_layers", "sliding_layers"):
            continue  # checked where they are read
        elif name == "hidden_act":
            kind, right = "a name", isinstance(value, str)
        else:
            kind, right = "a whole number", isinstance(value, int) and not isinstance(value, bool)
            right = right or (value is None and name in ("bos_token_id", "eos_token_id"))
        if not right:
            raise InputError(f"{name} in config.json must be {kind}, not {shown(value)}")
        if name in _NUMBERS:
            fields[name] = float(value)


def _token_id(value: Any, vocab_size: Any) -> int | None:
    """Return a token id, the first of several; None for one outside the vocabulary."""
    if isinstance(value, list):
        value = value[0] if value else None
    if not isinstance(value, int) or isinstance(value, bool) or not isinstance(vocab_size, int):
        return None
    return value if 0 <= value < vocab_size else None
