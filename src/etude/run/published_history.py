"""Read several saved versions of one model as a history that Etude did not record.

The folder holds a model folder for each step, such as ``step1000/`` (Pythia), ``checkpoint-500/`` (the Trainer of
transformers) or ``stage1-step150-tokens1B/`` (OLMo). Only config.json, tokenizers and safetensors files are read: the
optimizer states beside them are often pickles, which may run code. Nothing is written.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

from etude.errors import InputError
from etude.files import read_json
from etude.run.folder import is_run
from etude.run.weight_files import weight_files
from etude.untrusted import MAX_JSON_BYTES, open_plain, readable, shown

NOT_RECORDED = (
    "not recorded by Etude: what happened between these steps, and the text of the training, are not known"
)
_DAMAGE = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError),
    *(struct.error, RecursionError, OverflowError),
)
"""What reading a damaged file may raise."""
CONFIG, TOKENIZER = "config.json", "tokenizer.json"
_STEP = re.compile(
    r"(?:.*?[-_.])?(?:global[-_]?)?(?:step|steps|checkpoint|ckpt|iter|iteration)[-_]?(\d{1,15})(?:[-_.].*)?",
    re.I,
)
_SHAPES = re.compile(
    r"model_type|.*(?:size|layers?|heads?|embd|inner|positions|ctx|dim|theta|tie_word_embeddings)"
)
_BLOCK = 1 << 22


@dataclass(frozen=True)
class PublishedHistory:
    """The saved versions of a model. checkpoints: their folders by step, in the order of steps."""

    path: Path
    checkpoints: Mapping[int, Path]

    @classmethod
    def at(cls, path: Path) -> PublishedHistory | None:
        """Return the history in the folder ``path``; None if it holds none, or is a run or in one.

        Raises:
            InputError: two folders have one step, or the versions differ in architecture.
            Unreadable: this account may not read the folder.
        """
        if not path.is_dir() or is_run(path) or is_run(path.resolve().parent):
            return None
        with readable(path):
            names = sorted(os.listdir(path))
        found: dict[int, Path] = {}
        for name in names:
            step = step_in(name)
            if step is None or not (path / name / CONFIG).is_file():
                continue
            if step in found:
                raise InputError(
                    f"{path} has two folders of step {step}, {shown(found[step].name)} and {shown(name)}: keep one, or "
                    "put them into folders of their own"
                )
            found[step] = path / name
        if not found:
            return None
        _require_one_architecture(found)
        return cls(path, dict(sorted(found.items())))

    @cached_property
    def hashes(self) -> dict[int, str]:
        """The hash of each version's weights, by step: names, types, shapes and values, whatever files they are in.

        Raises:
            InputError: a weight file is missing or damaged, or there are only pickles.
        """
        return {step: weights_hash(folder) for step, folder in self.checkpoints.items()}

    @cached_property
    def duplicates(self) -> dict[int, int]:
        """The steps whose weights are those of an earlier step, with that step."""
        first: dict[str, int] = {}
        return {
            step: first[value] for step, value in self.hashes.items() if first.setdefault(value, step) != step
        }

    @property
    def notes(self) -> list[str]:
        """What the reader should know: that Etude did not record it, and which versions are the same."""
        return [
            f"{self.path}: {NOT_RECORDED}",
            *(
                f"step {step} has the same weights as step {earlier} ({self.hashes[step]})"
                for step, earlier in self.duplicates.items()
            ),
        ]


def step_in(name: str) -> int | None:
    """Return the step in the name of a folder, such as 500 of ``checkpoint-500``; None without one."""
    match = _STEP.fullmatch(name)
    return None if match is None else int(match.group(1))


def histories_in(folder: Path) -> Iterator[PublishedHistory]:
    """Yield the histories directly in ``folder``, in the order of names; damaged ones are skipped.

    Raises:
        Unreadable: this account may not read ``folder``.
    """
    with readable(folder):
        names = sorted(os.listdir(folder)) if folder.is_dir() else []
    for name in names:
        try:
            history = PublishedHistory.at(folder / name)
        except (InputError, PermissionError):
            continue
        if history is not None:
            yield history


def tokenizer_folder(folder: Path) -> Path:
    """Return the folder whose tokenizer a model folder has: itself, or, for a version without one, that of its history.

    The Trainer of transformers saves the tokenizer beside the last version only.
    """
    if (folder / TOKENIZER).is_file() or step_in(folder.name) is None:
        return folder
    parent = folder.resolve().parent
    if (parent / TOKENIZER).is_file():
        return parent
    history = PublishedHistory.at(parent)
    others = reversed(list(history.checkpoints.values())) if history else []
    return next((other for other in others if (other / TOKENIZER).is_file()), folder)


def weights_hash(folder: Path) -> str:
    """Return the BLAKE2b-64 hash of all tensors of a model folder, in the order of their names.

    Raises:
        InputError: a weight file is missing or damaged, or there are only pickles.
    """
    places: dict[str, tuple[Path, int, int, str]] = {}
    for file in weight_files(folder):
        for name, (start, end, about) in _tensors(file).items():
            places[name] = file, start, end, about
    digest = hashlib.blake2b(digest_size=8)
    for name, (file, start, end, about) in sorted(places.items()):
        digest.update(json.dumps([name, about]).encode("ascii"))
        with open_plain(file) as content:
            content.seek(start)
            _digest(content, end - start, digest, file)
    return digest.hexdigest()


def _digest(content: BinaryIO, left: int, digest: Any, file: Path) -> None:
    while left:
        block = content.read(min(left, _BLOCK))
        if not block:
            raise InputError(f"{file} is damaged (it ends too early): restore it")
        digest.update(block)
        left -= len(block)


def _tensors(file: Path) -> dict[str, tuple[int, int, str]]:
    """Return where each tensor of a safetensors file begins and ends, and its type and shape in words."""
    try:
        with open_plain(file) as content:
            (length,) = struct.unpack("<Q", content.read(8))
            if length > MAX_JSON_BYTES:
                raise ValueError("its header is too long")
            header = json.loads(content.read(length))
        size, tensors = file.stat().st_size, {}
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            start, end = (8 + length + int(place) for place in entry["data_offsets"])
            if not 8 + length <= start <= end <= size:
                raise ValueError("a tensor is outside the file")
            tensors[str(name)] = start, end, f"{entry['dtype']} {list(entry['shape'])}"
        places = sorted((start, end) for start, end, _ in tensors.values())
        if any(start < end for (_, end), (start, _) in itertools.pairwise(places)):
            raise ValueError("two tensors overlap")
    except _DAMAGE as error:
        raise InputError(f"{file} is damaged ({shown(str(error))}): restore it") from None
    return tensors


def _require_one_architecture(checkpoints: Mapping[int, Path]) -> None:
    """Raise InputError where two versions differ in what the shapes of the weights follow from."""
    first_folder, first = None, {}
    for folder in checkpoints.values():
        config = read_json(folder / CONFIG)
        if not isinstance(config, dict):
            raise InputError(f"{folder / CONFIG} is damaged: restore it")
        shapes = {key: value for key, value in config.items() if _SHAPES.fullmatch(key)}
        if first_folder is None:
            first_folder, first = folder, shapes
        for key in sorted(first.keys() & shapes.keys()):
            if first[key] != shapes[key]:
                raise InputError(
                    f"{folder} is another model than {first_folder} ({shown(key)} {shown(shapes[key])} instead of "
                    f"{shown(first[key])}): put the versions of each model into a folder of their own"
                )
