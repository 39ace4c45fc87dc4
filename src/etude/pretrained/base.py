"""The base of a run: a published model, or a checkpoint of another run, whose weights are its step 0.

The files of a base are stored once, in Etude's cache, in a folder named by the hash of their content. The first
checkpoint of every run on it is made of links to them, so it takes no disk space and stays when the cache is emptied.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from etude.data.files import key_of, locked
from etude.data.tokens.published import model_tokenizer
from etude.data.tokens.tokenizer import CARRIED, RECORD, EtudeTokenizer
from etude.errors import InputError
from etude.files import hash_file, read_json, staged_folder, sweep_staging
from etude.model.config import ModelConfig
from etude.model.folder import CARD, CONFIG, load_config
from etude.model.hf_config import config_from_hf, config_to_hf
from etude.model.weights import WEIGHTS_INDEX, weight_files
from etude.places import cache_folder
from etude.pretrained.gguf_model import ORIGIN
from etude.pretrained.gguf_weights import PLAIN
from etude.pretrained.source import model_folder
from etude.run.checkpoints import MARKER, OPTIMIZER_FILE, verify_checkpoint
from etude.untrusted import inside

_LICENCE_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE")
_DESCRIBED = (CONFIG, WEIGHTS_INDEX, *CARRIED, RECORD, ORIGIN, CARD, *_LICENCE_FILES)


@dataclass(frozen=True)
class Base:
    """A model that a run begins with.

    Attributes:
        source: how the user named it.
        folder: its model folder.
        files: the hash of each of its files, by name.
    """

    source: str
    folder: Path
    files: Mapping[str, str]

    @cached_property
    def config(self) -> ModelConfig:
        """The configuration of its network."""
        return load_config(self.folder)

    @cached_property
    def tokenizer(self) -> EtudeTokenizer:
        """Its tokenizer."""
        return model_tokenizer(self.folder)

    @property
    def hash(self) -> str:
        """Hash of the content: of all files but prose, which may be edited."""
        prose = {CARD, *_LICENCE_FILES}
        return key_of({name: value for name, value in self.files.items() if name not in prose})

    def manifest_entry(self) -> dict[str, Any]:
        """Return what the manifest of a run states of its base."""
        return {
            "source": self.source,
            "hash": self.hash,
            "files": dict(self.files),
            "licence": licence_of(self.folder),
            "rounding": rounding_of(self.folder),
            "config": config_to_hf(self.config),
        }


def open_base(source: str | Path) -> Base:
    """Open the model that ``source`` names (:mod:`etude.pretrained.source`) as the base of a run.

    Raises:
        InputError: there is no such model, it is of an unknown kind, or its tokenizer is missing.
    """
    folder = model_folder(source)
    if (folder / MARKER).is_file():
        verify_checkpoint(folder)
    load_config(folder)  # an unknown family is reported before gigabytes are read
    names = [file.name for file in weight_files(folder)]
    if reserved := {MARKER, OPTIMIZER_FILE} & set(names):
        raise InputError(
            f"{folder} has weights in {reserved.pop()}, a name that checkpoints use: rename the file"
        )
    names += [name for name in _DESCRIBED if (folder / name).is_file()]
    return Base(str(source), folder, {name: hash_file(folder / name) for name in sorted(names)})


def base_tokenizer(source: str | Path) -> EtudeTokenizer:
    """Return the tokenizer of the model that ``source`` names.

    Raises:
        InputError: there is no such model, or its tokenizer cannot be used.
    """
    return model_tokenizer(model_folder(source))


def store_in_cache(base: Base) -> Base:
    """Copy the files of ``base`` into Etude's cache, unless they are there, and return the base in the cache.

    Raises:
        EtudeError: the disk is full or cannot be written.
    """
    models = cache_folder() / "models"
    if base.folder.parent == models:  # of a GGUF file
        return base
    folder = models / base.hash
    with locked(models, base.hash):
        sweep_staging(models)
        # Also where a file is damaged, or where the same weights come with another licence or card.
        if any(_differs(folder, name, value) for name, value in base.files.items()):
            with staged_folder(folder) as staging:
                copy_files(base, staging)
    return Base(base.source, folder, base.files)


def _differs(folder: Path, name: str, expected: str) -> bool:
    file = inside(folder, name)
    return not file.is_file() or hash_file(file) != expected


def copy_files(base: Base, folder: Path) -> None:
    """Copy the files of ``base`` into ``folder``.

    Raises:
        InputError: one of them has changed since the base was opened.
    """
    for name, value in base.files.items():
        shutil.copyfile(base.folder / name, folder / name)
        if hash_file(folder / name) != value:
            raise InputError(f"{base.folder / name} was changed while it was read: try again")


def link_files(base: Base, folder: Path) -> None:
    """Link the files of ``base`` into ``folder``, or copy them where the file system cannot link."""
    for name in base.files:
        try:
            os.link(base.folder / name, folder / name)
        except OSError:
            shutil.copyfile(base.folder / name, folder / name)


def describe_base(base: Base) -> list[str]:
    """Return what the user should know of a base: its licence, and whether its weights were rounded."""
    licence = licence_of(base.folder)
    lines = [f"{base.source}: {base.config.model_type}, licence {licence or 'not stated'}"]
    rounding = rounding_of(base.folder)
    if rounding is not None:
        lines.append(
            f"its weights were rounded when the file was made ({rounding}): training begins with these"
        )
    return lines


def base_config(manifest: Mapping[str, Any]) -> ModelConfig | None:
    """Return the configuration of the base that a run's manifest names; None for a run without one.

    Raises:
        InputError: the manifest is damaged.
    """
    entry = manifest.get("base")
    if entry is None:
        return None
    try:
        return config_from_hf(entry["config"])
    except (InputError, KeyError, TypeError) as error:
        raise InputError(
            f"the base model in the run's manifest.json is damaged ({error}): restore it"
        ) from None


def licence_of(folder: Path) -> str | None:
    """Return the licence that a model folder states: in origin.json, or in the head of its card."""
    stated = origin_of(folder).get("license")
    if isinstance(stated, str) and stated:
        return stated
    card = folder / CARD
    head = card.read_text(encoding="utf-8", errors="replace")[:20_000] if card.is_file() else ""
    found = re.match(r"---\n(?:.*\n)*?license:\s*[\"']?([A-Za-z0-9][\w.+-]{0,60})", head)
    return found.group(1) if found else None


def rounding_of(folder: Path) -> str | None:
    """Return how the weights of an imported model were rounded, such as "Q4_1, Q8_0"; None if they were not."""
    origin = origin_of(folder)
    if not origin.get("rounded"):
        return None
    formats = origin.get("quantisation")
    kinds = [str(kind) for kind in formats if kind not in PLAIN] if isinstance(formats, dict) else []
    return ", ".join(kinds) or "quantised"


def origin_of(folder: Path) -> dict[str, Any]:
    """Return the record of where an imported model came from; empty for others."""
    if not (folder / ORIGIN).is_file():
        return {}
    try:
        origin = read_json(folder / ORIGIN)
    except InputError:
        return {}
    return origin if isinstance(origin, dict) else {}
