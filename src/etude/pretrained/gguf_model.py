"""Turn a GGUF file into a model folder: configuration, weights, tokenizer, card, and a record of where it came from."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import etude
from etude.data.files import key_of, locked
from etude.errors import EtudeError, InputError
from etude.files import read_json, staged_folder, sweep_staging, write_atomic, write_json
from etude.model.config import ModelConfig
from etude.model.folder import CARD, CONFIG
from etude.model.hf_config import config_to_hf
from etude.places import cache_folder
from etude.pretrained.gguf_config import config_of, family_of
from etude.pretrained.gguf_file import GgufFile, open_gguf
from etude.pretrained.gguf_tokenizer import GgufTokenizer, tokenizer_of
from etude.pretrained.gguf_weights import (
    QUANTISED,
    PlannedTensor,
    common_dtype,
    plan_weights,
    quantisation,
    write_weights,
)
from etude.pretrained.own_files import ORIGIN
from etude.run.weight_files import WEIGHTS
from etude.untrusted import read_plain, shown

SCHEMA = 1
"""Of :data:`ORIGIN`, and of what a cached folder holds: a folder of another schema is converted again."""
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,60}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_LONGEST_FACT = 1000
"""Characters of a text of the metadata that is recorded."""
_RECENT_NS = 2_000_000_000
"""Nanoseconds within which the times of a file may not show a change."""


def folder_from_gguf(path: Path, folder: Path) -> None:
    """Write the model of a GGUF file as the model folder ``folder``, whole or not at all.

    Weights of 16 and 32 bits keep their number format; quantised ones become float32, with exactly the values that they
    have in the file.

    Raises:
        InputError: ``folder`` exists; or the file is missing, damaged, or of a kind that cannot be read.
        EtudeError: the disk is full or cannot be written.
    """
    if os.path.lexists(folder):
        raise InputError(f"{folder} exists already: choose another name, or remove it")
    stamp = _stamp(path)
    with open_gguf(path) as file:
        _write_folder(file, folder, _sha256(file), stamp, replace=False)


def cached_gguf_folder(path: Path) -> Path:
    """Return the model folder of a GGUF file in Etude's cache, which is made the first time.

    It has the name of the SHA-256 of the file, so the same file under another name gives the same folder. Of several
    processes, one makes it and the others wait.

    Raises:
        InputError: the file is missing, damaged, or of a kind that cannot be read.
        EtudeError: the disk is full or cannot be written.
    """
    models, stamp = cache_folder() / "models", _stamp(path)
    note = models / "seen" / key_of([str(path.absolute()), *stamp])
    digest = _noted(note)
    if digest is not None and _is_made(models / digest, digest):
        return models / digest
    with open_gguf(path) as file:
        digest = _sha256(file)
        folder = models / digest
        if not _is_made(folder, digest):
            with locked(models, digest):
                if not _is_made(folder, digest):
                    sweep_staging(models)
                    _write_folder(file, folder, digest, stamp, replace=True)
    # A file that was just written may change again within the precision of its time.
    if stamp and time.time_ns() - max(stamp[-2:]) > _RECENT_NS:
        with suppress(EtudeError, OSError):  # it only saves the hashing
            note.parent.mkdir(exist_ok=True)
            write_atomic(note, digest)
    return folder


def _sha256(file: GgufFile) -> str:
    return hashlib.sha256(file.content).hexdigest()


def _noted(note: Path) -> str | None:
    """Return the hash that a note holds; None where there is none."""
    try:
        digest = read_plain(note, 64).decode()
    except (OSError, InputError, UnicodeDecodeError):
        return None
    return digest if _DIGEST.fullmatch(digest) else None


def _is_made(folder: Path, digest: str) -> bool:
    """Return whether a folder of the cache is whole, unchanged, and was made as this version makes it."""
    try:
        origin = read_json(folder / ORIGIN)
        written = (folder / ORIGIN).stat().st_mtime_ns  # after the configuration and the weights
        if any((folder / name).stat().st_mtime_ns > written for name in (CONFIG, WEIGHTS)):
            return False
    except (InputError, OSError):
        return False
    return isinstance(origin, dict) and origin.get("schema") == SCHEMA and origin.get("sha256") == digest


def _stamp(path: Path) -> tuple[int, ...]:
    """Return what changes when a file is changed: its identity, size and times; empty where it cannot be looked at."""
    try:
        status = path.stat()
    except (OSError, ValueError):  # `open_gguf` reports it
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _write_folder(
    file: GgufFile, folder: Path, digest: str, stamp: tuple[int, ...], *, replace: bool
) -> None:
    """Write the model folder; ``stamp`` is that of the file before it was hashed."""
    family_of(file)  # before the tokenizer: a file of another architecture may have any
    tokenizer = tokenizer_of(file)
    config = config_of(file, tokenizer.roles)
    if tokenizer.num_ids > config.vocab_size:
        raise file.damaged(f"{tokenizer.num_ids} tokens, and {config.vocab_size} rows of its embedding")
    plan = plan_weights(file, config)
    _require_space(folder, sum(tensor.size for tensor in plan))
    with staged_folder(folder, replace=replace) as staging:
        dtype = common_dtype(plan)
        pad = tokenizer.roles.get("pad")
        ids = {} if pad is None else {"pad_token_id": pad}
        write_json(staging / CONFIG, config_to_hf(config) | {"dtype": dtype, "torch_dtype": dtype} | ids)
        tokenizer.save(staging, config.max_position_embeddings)
        write_weights(staging / WEIGHTS, file, plan)
        origin = _origin(file, digest, plan, tokenizer)
        write_json(staging / ORIGIN, origin)
        write_atomic(staging / CARD, _card(origin, config))
        if _stamp(file.path) != stamp:
            raise InputError(f"{file.path} was changed while it was read: try again")


def _require_space(folder: Path, needed: int) -> None:
    """Raise EtudeError where the disk has no room for the weights, before anything is written."""
    place = next(place for place in folder.absolute().parents if place.exists())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise EtudeError(
            f"{folder} needs {needed / 1e9:.1f} GB, and {place} has {free / 1e9:.1f} GB free: free some space or "
            "choose another folder"
        )


def _origin(
    file: GgufFile, digest: str, plan: list[PlannedTensor], tokenizer: GgufTokenizer
) -> dict[str, Any]:
    """Return the record of where a folder came from; texts are those of the file."""
    numbers = quantisation(plan)
    parameters = sum(counts["parameters"] for counts in numbers.values())
    general = {
        key.removeprefix("general."): value
        for key, value in file.metadata.items()
        if key.startswith("general.") and isinstance(value, str) and len(value) <= _LONGEST_FACT
    }
    return {
        "schema": SCHEMA,
        "format": "gguf",
        "source": file.path.name,
        "sha256": digest,
        "bytes": len(file.content),
        "name": general.get("name"),
        "license": general.get("license"),
        "architecture": general["architecture"],
        "parameters": parameters,
        "quantisation": numbers,
        "rounded": any(kind in QUANTISED for kind in numbers),
        "bits_per_parameter": round(8 * sum(tensor.source.size for tensor in plan) / parameters, 2),
        "pre_tokenizer": tokenizer.pre,
        "token_roles": tokenizer.roles,
        "stop_tokens": tokenizer.stops,
        "general": general,
        "etude": etude.__version__,
    }


def _card(origin: dict[str, Any], config: ModelConfig) -> str:
    """Return the model card."""
    license = origin["license"]
    known = license if isinstance(license, str) and _LICENSE.fullmatch(license) else None
    name = shown(origin["name"] or origin["source"])
    formats = ", ".join(
        f"{kind} ({counts['tensors']} tensors)" for kind, counts in origin["quantisation"].items()
    )
    rounding = (
        "Quantised weights were turned into float32, with the values that they have in the file: what was lost when "
        "the file was made is not restored."
        if origin["rounded"]
        else "The weights are those of the file, unchanged."
    )
    return (
        f"---\nlicense: {known or 'other'}\nlibrary_name: {config.family.library}\n"
        "pipeline_tag: text-generation\ntags:\n- etude\n---\n\n"
        f"# {name}\n\n"
        f"{origin['parameters']:,} parameters, {config.model_type}, vocabulary of {config.vocab_size:,} tokens, up to "
        f"{config.max_position_embeddings:,} positions.\n\n"
        f"Published by others; made from the GGUF file `{shown(origin['source'])}` (SHA-256 `{origin['sha256']}`).\n"
        f"License: {shown(license) if license else 'not stated in the file'}.\n\n"
        f"Number formats in the file: {formats}; {origin['bits_per_parameter']} bits per parameter. {rounding}\n"
        f"`{ORIGIN}` holds these facts and those of the file's own metadata.\n"
    )
