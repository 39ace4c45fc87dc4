"""Read several saved versions of one model as a history that Etude did not record.

The folder holds a model folder for each step, such as ``step1000/`` (Pythia), ``checkpoint-500/`` (the Trainer of
transformers) or ``stage1-step150-tokens1B/`` (OLMo). Only config.json, tokenizers and safetensors files are read: the
optimizer states beside them are often pickles, which may run code. Nothing is written.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from etude.errors import InputError
from etude.files import read_json
from etude.messages import command
from etude.run.folder import is_run
from etude.run.weight_files import only_pickles
from etude.run.weights_hash import known_weights_hash, sampled_hash
from etude.untrusted import readable, shown

NOT_RECORDED = (
    "not recorded by Etude: what happened between these steps, and the text of the training, are not known"
)
NO_RECORD = "not recorded by Etude: its steps cannot be opened or replayed, and its updates are not known"
CONFIG, TOKENIZER = "config.json", "tokenizer.json"
_STEP = re.compile(
    r"(?:.*?[-_.])?(?:global[-_]?)?(?:step|steps|checkpoint|ckpt|iter|iteration)[-_]?(\d{1,15})(?:[-_.].*)?",
    re.I,
)
_SHAPES = re.compile(
    r"model_type|.*(?:size|layers?|heads?|embd|inner|positions|ctx|dim|theta|tie_word_embeddings)"
)


@dataclass(frozen=True)
class PublishedHistory:
    """The saved versions of a model.

    Attributes:
        checkpoints: their folders by step, in the order of steps.
        skipped: the folders of versions that are not read, since their weights are pickles alone.
    """

    path: Path
    checkpoints: Mapping[int, Path]
    skipped: Mapping[int, Path] = field(default_factory=dict)

    @classmethod
    def at(cls, path: Path) -> PublishedHistory | None:
        """Return the history in the folder ``path``; None if it holds none, or is a run or in one.

        Raises:
            InputError: two folders have one step, the versions differ in architecture, or all have pickles alone.
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
        read = {step: folder for step, folder in sorted(found.items()) if not only_pickles(folder)}
        if not read:
            raise InputError(f"no version in {path} can be read: {only_pickles(found[max(found)])}")
        _require_one_architecture(read)
        return cls(path, read, {step: found[step] for step in sorted(found.keys() - read.keys())})

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.path.absolute().name

    @property
    def last(self) -> int:
        """The step of the last version."""
        return max(self.checkpoints)

    def folder_of(self, step: int) -> Path:
        """Return the model folder of a version.

        Raises:
            InputError: there is none of that step, and the message names the nearest; or it is not read.
        """
        if step in self.skipped:
            raise InputError(only_pickles(self.skipped[step]))
        if step not in self.checkpoints:
            nearest = min(self.checkpoints, key=lambda known: abs(known - step))
            raise InputError(f"{self.name} has no version of step {step}: the nearest is step {nearest}")
        return self.checkpoints[step]

    @cached_property
    def hashes(self) -> dict[int, str]:
        """The hash of each version's weights, by step: names, types, shapes and values, whatever files they are in.

        Raises:
            InputError: a weight file is missing or damaged, or there are only pickles.
        """
        return {step: known_weights_hash(folder) for step, folder in self.checkpoints.items()}

    @cached_property
    def duplicates(self) -> dict[int, int]:
        """The steps whose weights are those of an earlier step, with that step. Raises InputError as hashes does."""
        return self.find_duplicates()

    def find_duplicates(
        self, on_progress: Callable[[int, int], None] = lambda done, of: None
    ) -> dict[int, int]:
        """Return :attr:`duplicates`; ``on_progress(done, total)`` is called before each version.

        Weights whose samples differ are different. Only the others are read as a whole.
        """
        sampled: dict[str, list[int]] = {}
        duplicates: dict[int, int] = {}
        for number, (step, folder) in enumerate(self.checkpoints.items()):
            on_progress(number, len(self.checkpoints))
            alike = sampled.setdefault(sampled_hash(folder), [])
            if alike:
                value = known_weights_hash(folder)
                for earlier in alike:
                    if known_weights_hash(self.checkpoints[earlier]) == value:
                        duplicates[step] = earlier
                        break
            if step not in duplicates:
                alike.append(step)
        return duplicates

    def same_weights(self, step: int, earlier: int) -> str:
        """Return a line on a version with the weights of an earlier one."""
        return f"step {step} has the same weights as step {earlier} ({self.hash_of(step)})"

    def hash_of(self, step: int) -> str:
        """Return the hash of the weights of one version. Raises InputError as :attr:`hashes` does."""
        return known_weights_hash(self.folder_of(step))

    @property
    def notes(self) -> list[str]:
        """What the reader should know: that Etude did not record it, and which versions are skipped or the same."""
        same = [self.same_weights(step, earlier) for step, earlier in self.duplicates.items()]
        return [f"{self.path}: {NOT_RECORDED}", *self.skipped_lines, *same]

    @property
    def skipped_lines(self) -> list[str]:
        """A line for each version that is not read, with the reason."""
        return [f"step {step} is skipped: {only_pickles(folder)}" for step, folder in self.skipped.items()]

    @property
    def refusal(self) -> str:
        """Why an opened step, a replay or an update cannot be shown, with the command that begins a recorded run."""
        train = command("train", "TEXT", "--from", version_source(self.path, self.last))
        return f"{shown(self.name)} was {NO_RECORD}; {train} begins a recorded run with its last version"


def is_history(path: Path) -> bool:
    """Return whether ``path`` holds saved versions of a model, which may not fit together, and is no run.

    Raises:
        Unreadable: this account may not read the folder.
    """
    with readable(path):
        if not path.is_dir() or is_run(path) or is_run(path.resolve().parent):
            return False
        return any(
            step_in(name) is not None and (path / name / CONFIG).is_file() for name in os.listdir(path)
        )


def version_source(path: Path, step: int) -> str:
    """Return how a command names a version of the history in ``path``."""
    return f"{path if path.name not in ('', '..') else path.resolve()}@{step}"


def step_in(name: str) -> int | None:
    """Return the step in the name of a folder, such as 500 of ``checkpoint-500``; None without one."""
    match = _STEP.fullmatch(name)
    return None if match is None else int(match.group(1))


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
    others = [*history.skipped.values(), *history.checkpoints.values()][::-1] if history else []
    return next((other for other in others if (other / TOKENIZER).is_file()), folder)


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
