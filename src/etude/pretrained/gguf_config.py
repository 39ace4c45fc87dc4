"""Read the configuration of a network from the metadata of a GGUF file."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etude.errors import InputError
from etude.messages import either
from etude.model.config import ModelConfig
from etude.model.families import Family, family_named
from etude.model.families.gguf_form import GgufForm
from etude.model.hf_config import config_from_hf
from etude.pretrained.gguf_file import GgufFile
from etude.registry import MODEL_FAMILIES
from etude.untrusted import shown

EMBEDDING, OUTPUT = "token_embd.weight", "output.weight"
ROPE_FACTORS = "rope_freqs.weight"
"""The divisors of the rotary frequencies, which llama.cpp's converter writes for Llama 3.1."""
_CHECKED = frozenset(
    {
        "vocab_size",
        "attention.value_length",
        "rope.dimension_count",
        "rope.scaling.type",
        "rope.scaling.factor",
        "rope.scaling.original_context_length",
        "rope.scaling.finetuned",
        "rope.scale_linear",
        "attention.causal",
        "tensor_data_layout",
        "attention.head_count_kv",
    }
)
"""Keys of the metadata that are checked or change nothing, besides those that the family reads."""
_STANDARD_LLAMA3 = (1.0, 4.0, 8192)
"""low_freq_factor, high_freq_factor and original_max_position_embeddings of all Llama 3 models."""


def family_of(file: GgufFile) -> tuple[Family, GgufForm]:
    """Return the family that a file's architecture belongs to, and the family's form in GGUF files.

    Raises:
        InputError: the architecture is not supported; the message lists those that are.
    """
    architecture = file.get("general.architecture", str)
    if architecture is None:
        raise file.damaged("it has no general.architecture")
    forms = {
        family.gguf.architecture: family
        for family in map(family_named, MODEL_FAMILIES.names())
        if family.gguf
    }
    family = forms.get(architecture)
    if family is None or family.gguf is None:
        raise InputError(
            f"{file.path} holds a model of the architecture {shown(repr(architecture))}: "
            f"only {', '.join(forms)} can be read"
        )
    return family, family.gguf


def config_of(file: GgufFile, roles: dict[str, int]) -> ModelConfig:
    """Return the configuration that the metadata and the shapes of the tensors describe.

    Args:
        roles: ids of special tokens, by role; "bos" and "eos" become part of the configuration.

    Raises:
        InputError: missing or contradictory values, or something that the family's network cannot compute.
    """
    family, form = family_of(file)
    _refuse_unknown_keys(file, form)
    values = _values(file, form)
    embedding = file.tensors.get(EMBEDDING)
    if embedding is None or len(embedding.shape) != 2:
        raise file.damaged(f"it has no {EMBEDDING}")
    values |= {
        "model_type": family.name,
        "vocab_size": embedding.shape[0],
        "tie_word_embeddings": _is_tied(file),
        "bos_token_id": roles.get("bos"),
        "eos_token_id": roles.get("eos"),
    }
    values |= {flag: tensor in file.tensors for flag, tensor in form.flags.items()}
    try:
        values |= form.derived(values)
        config = config_from_hf(values)
        if scaling := _rope_scaling(file, config):
            config = config_from_hf(values | {"rope_scaling": scaling})
    except InputError as error:
        raise InputError(f"{file.path}: {error}") from None
    _require_agreement(file, config)
    return config


def _values(file: GgufFile, form: GgufForm) -> dict[str, Any]:
    """Return the fields of config.json that the family's keys hold."""
    values: dict[str, Any] = {}
    for name, key in form.keys.items():
        value = file.get(f"{form.architecture}.{key}", (int, float))
        if value is None and name not in form.optional:
            raise file.damaged(f"it has no {form.architecture}.{key}")
        if value is not None:
            values[name] = value
    if "head_dim" in form.keys and "head_dim" not in values:
        width, heads = values["hidden_size"], values["num_attention_heads"]
        if not isinstance(width, int) or not isinstance(heads, int) or heads < 1:
            raise file.damaged(f"{width} numbers for {heads} heads")
        values["head_dim"] = width // heads
    return values


def _refuse_unknown_keys(file: GgufFile, form: GgufForm) -> None:
    """Raise InputError for a property of the architecture that the family's network lacks, such as a sliding window.

    A key that is zero or false asks for nothing.
    """
    prefix = f"{form.architecture}."
    known = _CHECKED | set(form.keys.values())
    for key, value in file.metadata.items():
        if key.startswith(prefix) and key.removeprefix(prefix) not in known:
            absent = isinstance(value, int | float) and not value
            if not absent:
                raise InputError(f"{file.path} sets {shown(key)} = {shown(value)}, which is not supported")
    if file.get(f"{prefix}attention.causal", bool, True) is False:
        raise InputError(f"{file.path} sets {prefix}attention.causal = False, which is not supported")


def _require_agreement(file: GgufFile, config: ModelConfig) -> None:
    """Raise InputError where a redundant value differs from the configuration."""
    architecture = file.metadata["general.architecture"]
    expected = {
        "vocab_size": config.vocab_size,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.value_length": config.head_dim,
    }
    if config.position == "rope":
        expected["rope.dimension_count"] = config.rotary_dim
    for key, value in expected.items():
        stated = file.get(f"{architecture}.{key}", int, value)
        if stated != value:
            raise InputError(
                f"{file.path} sets {architecture}.{key} = {stated}: only {value} fits its other sizes"
            )


def _is_tied(file: GgufFile) -> bool:
    """Return whether the output matrix is the embedding: it is missing, or a copy as older converters wrote it."""
    output, embedding = file.tensors.get(OUTPUT), file.tensors[EMBEDDING]
    if output is None:
        return True
    if (output.kind, output.shape) != (embedding.kind, embedding.shape):
        return False
    return np.array_equal(file.rows(output), file.rows(embedding))


def _rope_scaling(file: GgufFile, config: ModelConfig) -> dict[str, Any] | None:
    """Return the `rope_scaling` entry of config.json; None where the frequencies are not scaled.

    Raises:
        InputError: a scaling that is not supported, which the message names.
    """
    prefix = f"{file.metadata['general.architecture']}.rope"
    kind = file.get(f"{prefix}.scaling.type", str, "none")
    factor = file.get(
        f"{prefix}.scaling.factor", (int, float), file.get(f"{prefix}.scale_linear", (int, float))
    )
    if ROPE_FACTORS in file.tensors:
        return _llama3_scaling(file, config)
    if kind == "none" and factor in (None, 0, 1):
        return None
    if kind not in ("none", "linear") or factor is None:
        known = either(["none", "linear", f"the factors in {ROPE_FACTORS}"])
        raise InputError(f"its rotary positions are scaled by {shown(repr(kind))}: only {known} can be read")
    return {"rope_type": "linear", "factor": float(factor)}


def _llama3_scaling(file: GgufFile, config: ModelConfig) -> dict[str, Any]:
    """Return the parameters of Llama 3.1's scaling that give the factors of the file.

    The file holds only the divisor of each frequency, f(wavelength) = 1 / ((1 - s) / factor + s), where
    s = (original / wavelength - low) / (high - low), clamped to [0, 1]. The standard parameters are tried first, then
    those that solve this equation with low = 1.

    Raises:
        InputError: no parameters give these factors.
    """
    tensor = file.tensors[ROPE_FACTORS]
    if tensor.kind != "F32" or tensor.shape != (config.rotary_dim // 2,):
        raise file.damaged(f"{ROPE_FACTORS} has the shape {tensor.shape}")
    divisors = file.rows(tensor).view("<f4")[0].astype(np.float64)
    # Turns per position, from which follows how many turns fit the original context.
    turns = config.rope_theta ** (-np.arange(0, config.rotary_dim, 2) / config.rotary_dim) / (2 * math.pi)
    factor = float(divisors.max())
    if np.isfinite(divisors).all() and divisors.min() >= 1 and factor > 1:
        factor = float(str(np.float32(factor)))
        for low, high, original in (_STANDARD_LLAMA3, *_solved(divisors, turns, factor)):
            if np.allclose(_llama3_divisors(turns, factor, low, high, original), divisors, rtol=1e-4, atol=0):
                return {
                    "rope_type": "llama3",
                    "factor": factor,
                    "low_freq_factor": low,
                    "high_freq_factor": high,
                    "original_max_position_embeddings": original,
                }
    raise InputError(f"its rotary positions are scaled by {ROPE_FACTORS}, in another way than Llama 3.1's")


def _llama3_divisors(
    turns: NDArray[np.float64], factor: float, low: float, high: float, original: int
) -> NDArray[np.float64]:
    smooth = np.clip((original * turns - low) / (high - low), 0, 1)
    divisors: NDArray[np.float64] = 1 / ((1 - smooth) / factor + smooth)
    return divisors


def _solved(
    divisors: NDArray[np.float64], turns: NDArray[np.float64], factor: float
) -> list[tuple[float, float, int]]:
    """Return the (low, high, original) with low = 1 on the line through two of the partly scaled frequencies."""
    smooth = (1 / divisors - 1 / factor) / (1 - 1 / factor)
    partly = np.flatnonzero((smooth > 1e-3) & (smooth < 1 - 1e-3))
    if len(partly) < 2:
        return []
    first, last = partly[0], partly[-1]
    slope = (smooth[first] - smooth[last]) / (turns[first] - turns[last])
    offset = smooth[last] - slope * turns[last]
    if slope <= 0 or offset >= -1e-6:
        return []
    high = round(1 - 1 / offset, 3)
    original = slope * (high - 1)
    return [(1.0, high, round(original))] if high > 1 and 1 <= original < 2**24 else []
