"""Merge a LoRA adapter into its base model: W + scale * B A for every matrix that it adapts (Hu et al. 2021).

An adapter folder is one that PEFT writes: adapter_config.json, and adapter_model.safetensors with two matrices, A of
shape (r, in) and B of shape (out, r), for each adapted matrix. The scale is lora_alpha / r, or lora_alpha / sqrt(r)
with use_rslora. Adapted matrices become float32, so that a small product is not lost in the rounding of 16 bits.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from etude.data.files import key_of, locked
from etude.data.tokens.tokenizer import CARRIED
from etude.errors import InputError
from etude.files import hash_file, read_json, staged_folder, sweep_staging, write_json
from etude.model.config import ModelConfig
from etude.model.folder import CONFIG, load_config, write_tensors
from etude.model.weights import StoredWeights
from etude.places import cache_folder
from etude.pretrained.own_files import DESCRIBED, ORIGIN, require_own
from etude.pretrained.source_names import ADAPTER_CONFIG, HUB
from etude.run.weight_files import WEIGHTS, WEIGHTS_INDEX, weight_files
from etude.untrusted import readable, shown

ADAPTER_WEIGHTS = "adapter_model.safetensors"
SCHEMA = 1
"""Of a merged folder in the cache."""
_PREFIX, _A, _B, _COPY = "base_model.model.", ".lora_A.weight", ".lora_B.weight", ".base_layer.weight"
_REFUSED = (
    *("use_dora", "use_qalora", "lora_bias", "modules_to_save", "rank_pattern", "alpha_pattern"),
    *("target_parameters", "trainable_token_indices", "layer_replication", "alora_invocation_tokens"),
)
"""Keys whose values change what the two matrices mean, or add others."""
_LEAVES_BASE = (True, False, None, "gaussian", "orthogonal", "eva")
"""Values of init_lora_weights with which PEFT uses the base's matrices as they are."""
_MOST = 1 << 20
"""Largest rank and lora_alpha: more is damage."""


@dataclass(frozen=True)
class Adapter:
    """The content of an adapter_config.json.

    Attributes:
        base: the path or the Hub's name of the base model.
        rank: rows of A and columns of B.
        scale: factor of the product B A.
        transposed: whether the adapted matrices are stored as (in, out).
    """

    folder: Path
    base: str
    rank: int
    scale: float
    transposed: bool


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
        or not (0 < rank <= _MOST and abs(alpha) <= _MOST)
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
    return Adapter(folder, base, rank, alpha / divisor, values.get("fan_in_fan_out") is True)


def cached_merged_folder(folder: Path, open_source: Callable[[str], Path]) -> Path:
    """Return the model folder of an adapter merged into its base, in Etude's cache; it is made the first time.

    Args:
        open_source: returns the model folder of a source (:func:`etude.pretrained.resolve_source.model_folder`).

    Raises:
        InputError: the adapter or its base is missing, damaged, of another kind, or they do not fit together.
        EtudeError: the disk is full or cannot be written.
    """
    adapter = read_adapter(folder)
    base = open_source(_base_source(adapter))
    config = load_config(base)
    own = require_own(folder, (ADAPTER_CONFIG, ADAPTER_WEIGHTS, *CARRIED))
    if ADAPTER_WEIGHTS not in own:
        raise InputError(f"{folder} holds no {ADAPTER_WEIGHTS}: save the adapter with safetensors")
    of_base = require_own(base, (*(file.name for file in weight_files(base)), *DESCRIBED))
    hashes = [
        (name, hash_file(place / name)) for place, names in ((folder, own), (base, of_base)) for name in names
    ]
    models = cache_folder() / "models"
    merged = models / key_of([SCHEMA, *hashes])
    with locked(models, merged.name):
        if not (merged / WEIGHTS).is_file():
            sweep_staging(models)
            weights = merged_weights(adapter, base, config)
            with staged_folder(merged) as staging:
                for place, names in (
                    (base, of_base),
                    (folder, own),
                ):  # the adapter's own tokenizer replaces the base's
                    for name in names:
                        if not name.endswith((".safetensors", WEIGHTS_INDEX)):
                            shutil.copyfile(place / name, staging / name)
                write_json(staging / ORIGIN, _origin(adapter, base))
                write_tensors(staging / WEIGHTS, weights)
    return merged


def _base_source(adapter: Adapter) -> str:
    """Return the base as a source: a model at that path, from the working directory or from the adapter's folder."""
    for path in (Path(adapter.base), adapter.folder / adapter.base):
        with suppress(OSError, ValueError):  # no possible path
            if (path / CONFIG).is_file() or path.is_file():
                return str(path)
    if adapter.base.count("/") == 1 and not adapter.base.startswith((".", "/", "~")):
        return f"{HUB}{adapter.base}"
    raise InputError(
        f"the base model of the adapter {adapter.folder} is not at {shown(adapter.base)}: set base_model_name_or_path "
        f"in its {ADAPTER_CONFIG} to the model's folder"
    )


def merged_weights(adapter: Adapter, base: Path, config: ModelConfig) -> dict[str, Tensor]:
    """Return the weights of the base with the adapter's products added, by the names of the saved format.

    Raises:
        InputError: a file is damaged, or the adapter has a tensor that does not fit the base.
    """
    stored = StoredWeights.open(base, config)
    weights = stored.read(stored.places)
    for module, pair in _pairs(adapter).items():
        name = config.family.parameter_name(f"{module}.weight")
        matrix = weights.get(name) if name is not None else None
        if name is None or matrix is None or _shape(adapter, pair) != tuple(matrix.shape):
            raise InputError(
                f"{adapter.folder / ADAPTER_WEIGHTS}: the matrices for {shown(module)} do not fit the base model "
                f"{base}: give the base that the adapter was trained on"
            )
        down, up = pair
        product = (up.float() @ down.float()) * adapter.scale
        weights[name] = matrix.float() + (product.T if adapter.transposed else product)
    return weights


def _shape(adapter: Adapter, pair: tuple[Tensor, Tensor]) -> tuple[int, ...] | None:
    """Return the shape of B A in the layout of the stored matrix; None where A and B do not fit each other."""
    down, up = pair
    if down.ndim != 2 or up.ndim != 2 or not up.shape[1] == down.shape[0] == adapter.rank:
        return None
    shape = (up.shape[0], down.shape[1])
    return shape[::-1] if adapter.transposed else shape


def _pairs(adapter: Adapter) -> Mapping[str, tuple[Tensor, Tensor]]:
    """Return A and B of each adapted module, by its name in the base."""
    file = adapter.folder / ADAPTER_WEIGHTS
    with readable(file):
        file.open("rb").close()
    try:
        with safe_open(file, framework="pt") as opened:
            # PEFT adds a copy of the base's matrix where an embedding or the output layer is adapted.
            names = [name for name in opened.keys() if not name.endswith(_COPY)]  # noqa: SIM118 - no mapping
            tensors = {name: opened.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file} is damaged ({shown(str(error))}): restore it") from None
    modules = {name.removeprefix(_PREFIX).removesuffix(_A) for name in tensors if name.endswith(_A)}
    expected = {f"{_PREFIX}{module}{part}" for module in modules for part in (_A, _B)}
    if not modules or (differing := sorted(tensors.keys() ^ expected)):
        of = f" ({shown(differing[0])})" if modules else ""
        raise InputError(f"{file} does not hold one pair of LoRA matrices for each module{of}: restore it")
    return {
        module: (tensors[f"{_PREFIX}{module}{_A}"], tensors[f"{_PREFIX}{module}{_B}"])
        for module in sorted(modules)
    }


def _origin(adapter: Adapter, base: Path) -> dict[str, Any]:
    """Return the record of where the merged model came from: that of the base, with the adapter."""
    before = read_json(base / ORIGIN) if (base / ORIGIN).is_file() else {}
    known = before if isinstance(before, dict) else {}
    return {
        "schema": SCHEMA,
        "format": "adapter",
        "source": adapter.base,
        **known,
        "adapter": {
            "folder": adapter.folder.name,
            "base": adapter.base,
            "rank": adapter.rank,
            "scale": adapter.scale,
            "sha256": hash_file(adapter.folder / ADAPTER_WEIGHTS),
        },
    }
