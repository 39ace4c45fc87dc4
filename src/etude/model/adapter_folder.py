"""Read and write adapters in PEFT's format: adapter_config.json, and adapter_model.safetensors with two matrices, A of
shape (r, in) and B of shape (out, r), for each adapted matrix of the saved format.

A folder with an adapter and no weights of its own is an adapted network, whose configuration and other weights are
those of the base, which :func:`etude.run.weight_files.base_of_adapter` finds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from etude.errors import InputError
from etude.files import read_json, write_json
from etude.model.adapter import MOST_RANK, LoRA, adapted_matrices
from etude.model.config import ModelConfig
from etude.run.weight_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, base_folder
from etude.untrusted import readable, shown

PREFIX, A, B, COPY = "base_model.model.", ".lora_A.weight", ".lora_B.weight", ".base_layer.weight"
_REFUSED = (
    *("use_dora", "use_qalora", "lora_bias", "modules_to_save", "rank_pattern", "alpha_pattern"),
    *("target_parameters", "trainable_token_indices", "layer_replication", "alora_invocation_tokens"),
)
"""Keys whose values change what the two matrices mean, or add others."""
_LEAVES_BASE = (True, False, None, "gaussian", "orthogonal", "eva")
"""Values of init_lora_weights with which PEFT uses the base's matrices as they are."""


@dataclass(frozen=True)
class Adapter:
    """The content of an adapter_config.json.

    Attributes:
        base: the path or the Hub's name of the base model.
        rank: rows of A and columns of B.
        alpha: as in the file.
        scale: factor of the product B A.
        targets: names of the adapted modules; empty where the file has a regular expression instead.
        transposed: whether the adapted matrices are stored as (in, out).
        dropout: probability; 0 where the file has none from 0 to 1. It matters only to further training.
    """

    folder: Path
    base: str
    rank: int
    alpha: float
    scale: float
    targets: tuple[str, ...]
    transposed: bool
    dropout: float


def read_adapter(folder: Path) -> Adapter:
    """Read adapter_config.json.

    Raises:
        InputError: it is damaged, or describes another method than plain LoRA.
    """
    file = folder / ADAPTER_CONFIG
    values = read_json(file)
    if not isinstance(values, dict):
        raise InputError(f"{file} is damaged: restore it")
    if values.get("peft_type") != "LORA":
        raise InputError(
            f"{file}: an adapter of the kind {shown(values.get('peft_type'))} cannot be read, only LORA: merge it into "
            "its base with PEFT (merge_and_unload) and give the merged model"
        )
    used = [key for key in _REFUSED if values.get(key)]
    if values.get("bias", "none") != "none":
        used.append("bias")
    if used:
        raise InputError(
            f"{file} uses {', '.join(used)}, which cannot be read: merge the adapter into its base with PEFT "
            "(merge_and_unload) and give the merged model"
        )
    rank, alpha, base = values.get("r"), values.get("lora_alpha"), values.get("base_model_name_or_path")
    if (
        type(rank) is not int
        or not isinstance(alpha, int | float)
        or not (0 < rank <= MOST_RANK and abs(alpha) <= MOST_RANK)
    ):
        raise InputError(f"{file} is damaged (r {shown(rank)}, lora_alpha {shown(alpha)}): restore it")
    if not isinstance(base, str) or not base:
        raise InputError(
            f"{file} does not name its base model: set base_model_name_or_path to a model folder"
        )
    if values.get("init_lora_weights", True) not in _LEAVES_BASE:
        raise InputError(
            f"{file}: init_lora_weights {shown(values.get('init_lora_weights'))} changes the base's own matrices: "
            "merge the adapter with PEFT (merge_and_unload) and give the merged model"
        )
    divisor = math.sqrt(rank) if values.get("use_rslora") is True else rank
    named, dropout = values.get("target_modules"), values.get("lora_dropout")
    is_list = isinstance(named, list) and all(isinstance(name, str) for name in named)
    return Adapter(
        folder,
        base,
        rank,
        float(alpha),
        alpha / divisor,
        tuple(named or ()) if is_list else (),
        values.get("fan_in_fan_out") is True,
        float(dropout) if isinstance(dropout, int | float) and 0 <= dropout < 1 else 0.0,
    )


def read_pairs(adapter: Adapter) -> Mapping[str, tuple[Tensor, Tensor]]:
    """Return A and B of each adapted module, by its name in the base.

    Raises:
        InputError: the file is missing, damaged, or has other tensors.
    """
    file = adapter.folder / ADAPTER_WEIGHTS
    if not file.is_file():
        raise InputError(f"{adapter.folder} holds no {ADAPTER_WEIGHTS}: save the adapter with safetensors")
    with readable(file):
        file.open("rb").close()
    try:
        with safe_open(file, framework="pt") as opened:
            # PEFT adds a copy of the base's matrix where an embedding or the output layer is adapted.
            names = [name for name in opened.keys() if not name.endswith(COPY)]  # noqa: SIM118 - no mapping
            tensors = {name: opened.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file} is damaged ({shown(str(error))}): restore it") from None
    modules = {name.removeprefix(PREFIX).removesuffix(A) for name in tensors if name.endswith(A)}
    expected = {f"{PREFIX}{module}{part}" for module in modules for part in (A, B)}
    if not modules or (differing := sorted(tensors.keys() ^ expected)):
        of = f" ({shown(differing[0])})" if modules else ""
        raise InputError(f"{file} does not hold one pair of LoRA matrices for each module{of}: restore it")
    return {
        module: (tensors[f"{PREFIX}{module}{A}"], tensors[f"{PREFIX}{module}{B}"])
        for module in sorted(modules)
    }


def with_adapter_of(folder: Path, config: ModelConfig) -> ModelConfig:
    """Return ``config``, that of the base, with the adapter in ``folder``.

    Raises:
        InputError: it is damaged or of another kind, or does not fit the network.
    """
    adapter = read_adapter(folder)
    if not adapter.targets:
        raise InputError(f"{folder / ADAPTER_CONFIG} has no list of target_modules: restore it")
    alpha = adapter.scale * adapter.rank if adapter.scale != adapter.alpha / adapter.rank else adapter.alpha
    try:
        return config.replace(adapter=LoRA(adapter.rank, alpha, adapter.targets, adapter.dropout))
    except InputError as error:
        raise InputError(f"{folder / ADAPTER_CONFIG}: {error}") from None


def read_factors(folder: Path, config: ModelConfig) -> dict[str, Tensor]:
    """Return the factors of the network in ``folder``, by their names in the network.

    Raises:
        InputError: the adapter is damaged, or of another network.
    """
    pairs, matrices, factors = read_pairs(read_adapter(folder)), adapted_matrices(config), {}
    form, adapter = config.family.adapters, config.adapter
    assert form is not None
    assert adapter is not None
    differing = sorted(pairs.keys() ^ {matrix.module for matrix in matrices})
    for matrix in matrices:
        down, up = pairs.get(matrix.module, (None, None))
        shapes = (adapter.rank, matrix.inputs), (sum(matrix.outputs), adapter.rank)
        if down is None or up is None or (tuple(down.shape), tuple(up.shape)) != shapes:
            differing.append(matrix.module)
            continue
        factors[f"{matrix.parts[0]}.lora_A"] = down
        parts = [up] if len(matrix.parts) == 1 else form.split(up, config)
        factors |= {f"{path}.lora_B": part for path, part in zip(matrix.parts, parts, strict=True)}
    if differing:
        raise InputError(
            f"{folder / ADAPTER_WEIGHTS}: the matrices for {shown(differing[0])} do not fit {ADAPTER_CONFIG} and the "
            f"base model {base_folder(folder)}: restore them, or give the base that the adapter was trained on"
        )
    return factors


def adapter_tensors(factors: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Return the factors of a network by PEFT's names."""
    form, tensors = config.family.adapters, {}
    assert form is not None
    for matrix in adapted_matrices(config):
        parts = [factors[f"{path}.lora_B"] for path in matrix.parts]
        tensors[f"{PREFIX}{matrix.module}{A}"] = factors[f"{matrix.parts[0]}.lora_A"]
        tensors[f"{PREFIX}{matrix.module}{B}"] = parts[0] if len(parts) == 1 else form.join(parts, config)
    return tensors


def write_adapter_config(folder: Path, config: ModelConfig, base: str) -> None:
    """Write the adapter_config.json of an adapter for the model that ``base`` names."""
    adapter, form = config.adapter, config.family.adapters
    assert adapter is not None
    assert form is not None
    values: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": adapter.rank,
        "lora_alpha": int(adapter.alpha) if adapter.alpha.is_integer() else adapter.alpha,
        "lora_dropout": adapter.dropout,
        "target_modules": list(adapter.targets),
        "bias": "none",
        "fan_in_fan_out": form.transposed,
        "init_lora_weights": True,
        "use_rslora": False,
        "inference_mode": True,
    }
    write_json(folder / ADAPTER_CONFIG, values)
