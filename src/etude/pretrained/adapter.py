"""Merge a LoRA adapter into its base model: W + scale * B A for every matrix that it adapts (Hu et al. 2021).

The folder is one that PEFT or a run with an adapter wrote (:mod:`etude.model.adapter_folder`). Adapted matrices become
float32, so that a small product is not lost in the rounding of 16 bits.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from etude.data.files import key_of, locked
from etude.data.tokens.tokenizer import CARRIED
from etude.errors import InputError
from etude.files import hash_file, read_json, staged_folder, sweep_staging, write_json
from etude.model.adapter_folder import Adapter, read_adapter, read_pairs
from etude.model.config import ModelConfig
from etude.model.folder import load_config, write_tensors
from etude.model.weights import StoredWeights
from etude.places import cache_folder
from etude.pretrained.own_files import DESCRIBED, ORIGIN, require_own
from etude.pretrained.source_names import HUB
from etude.run.weight_files import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    WEIGHTS,
    WEIGHTS_INDEX,
    base_of_adapter,
    no_base,
    weight_files,
)
from etude.untrusted import shown

SCHEMA = 1
"""Of a merged folder in the cache."""


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
    base = base_of_adapter(adapter.folder, adapter.base)
    if base is not None:
        return str(base)
    if adapter.base.count("/") == 1 and not adapter.base.startswith((".", "/", "~")):
        return f"{HUB}{adapter.base}"
    raise InputError(no_base(adapter.folder, adapter.base))


def merged_weights(adapter: Adapter, base: Path, config: ModelConfig) -> dict[str, Tensor]:
    """Return the weights of the base with the adapter's products added, by the names of the saved format.

    Raises:
        InputError: a file is damaged, or the adapter has a tensor that does not fit the base.
    """
    stored = StoredWeights.open(base, config)
    weights = stored.read(stored.places)
    for module, pair in read_pairs(adapter).items():
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
