"""The base of a run: a published model, or a checkpoint of another run, whose weights are its step 0.

:mod:`etude.pretrained.store` puts its files into the first checkpoint of the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from etude.data.files import key_of
from etude.data.tokens.published import model_tokenizer
from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.errors import InputError
from etude.files import hash_file
from etude.model.config import ModelConfig
from etude.model.folder import CARD, load_config, require_whole
from etude.model.hf_config import config_from_hf, config_to_hf
from etude.places import expand_home
from etude.pretrained.adapter import cached_merged_folder
from etude.pretrained.facts import licence_of, rounding_of
from etude.pretrained.own_files import PROSE, SNAPSHOTS, described_files, file_of_model, require_own
from etude.pretrained.resolve_source import model_folder
from etude.run.checkpoints import MARKER, verify_base, verify_checkpoint
from etude.run.folder import is_run
from etude.run.published_history import step_in, version_source
from etude.run.weight_files import OPTIMIZER_FILE, is_adapted, weight_files
from etude.untrusted import shown


@dataclass(frozen=True)
class Base:
    """A model that a run begins with.

    Attributes:
        source: how the user named it; a run or a history with the step of its newest checkpoint, as ``RUN@STEP``.
        folder: its model folder.
        weights: the names of its weight files.
        described: the names of its other files.
        step: its step, if Etude trained it.
        known: the hashes of files that are known and verified, by name.
    """

    source: str
    folder: Path
    weights: tuple[str, ...]
    described: tuple[str, ...]
    step: int | None = None
    known: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def config(self) -> ModelConfig:
        """The configuration of its network."""
        return load_config(self.folder)

    @cached_property
    def tokenizer(self) -> EtudeTokenizer:
        """Its tokenizer."""
        return model_tokenizer(self.folder)

    @cached_property
    def files(self) -> Mapping[str, str]:
        """The hash of each of its files, by name. They are read once, when this is first used."""
        names = sorted((*self.weights, *self.described))
        return {name: self.known.get(name) or hash_file(self.path(name)) for name in names}

    def path(self, name: str) -> Path:
        """Return the path of one of its files: those of the tokenizer may lie beside another version of the model."""
        return file_of_model(self.folder, name)

    @property
    def hash(self) -> str:
        """Hash of the content: of all files but prose and the record of its origin."""
        return key_of({name: value for name, value in self.files.items() if name not in PROSE})

    def manifest_entry(self) -> dict[str, Any]:
        """Return what the manifest of a run states of its base."""
        own = {} if self.step is None else {"step": self.step}
        version = {"revision": self.folder.name} if self.folder.parent.name == SNAPSHOTS else {}
        return {
            "source": self.source,
            **own,
            **version,
            "hash": self.hash,
            "files": dict(self.files),
            "licence": licence_of(self.folder),
            "rounding": rounding_of(self.folder),
            "config": config_to_hf(self.config),
        }


def open_base(source: str | Path) -> Base:
    """Open the model that ``source`` names (:mod:`etude.pretrained.resolve_source`) as the base of a run.

    An adapter is merged into its own base.

    Raises:
        InputError: there is no such model, it is of an unknown kind, a file is missing, not its own or too large, or
            the weights lack a tensor.
    """
    folder = model_folder(source)
    checkpoint = verify_checkpoint(folder) if (folder / MARKER).is_file() else None
    known = {} if checkpoint is None else dict(checkpoint.checksums)
    if is_adapted(folder):
        verify_base(folder)
        folder, known = cached_merged_folder(folder, model_folder), {}
    described = described_files(folder)
    weights = tuple(file.name for file in weight_files(folder))
    require_own(folder, weights)
    if reserved := {MARKER, OPTIMIZER_FILE} & set(weights):
        raise InputError(
            f"{folder} has weights in {reserved.pop()}, a name that checkpoints use: rename the file"
        )
    require_whole(folder)  # before gigabytes are read
    if checkpoint is None:
        named, step = str(source), step_in(folder.name)
        if step is not None and folder.parent == expand_home(named):  # the last of several saved versions
            named = version_source(expand_home(named), step)
        return Base(named, folder, weights, described)
    known.pop(CARD, None)
    named = f"{source}@{checkpoint.step}" if is_run(expand_home(str(source))) else str(source)
    return Base(named, folder, weights, described, checkpoint.step, known)


def describe_base(base: Base) -> list[str]:
    """Return what the user should know of a base: its licence, and whether its weights were rounded."""
    licence = licence_of(base.folder)
    lines = [f"{shown(base.source)}: {base.config.model_type}, licence {licence or 'not stated'}"]
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
