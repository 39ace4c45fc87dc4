"""Open a tuned run to report on it, and record a report: in tuning.jsonl, with its details, and in the model card."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from etude.config import Resolved
from etude.data.conversations.encode import Mask
from etude.data.corpus.corpus import EXAMPLES, Corpus
from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.errors import InputError
from etude.evaluate.examined_run import ExaminedRun
from etude.files import write_atomic, write_json
from etude.model.folder import CARD
from etude.plan.model_card import with_tuning
from etude.pretrained.base import open_base
from etude.pretrained.facts import recorded_facts
from etude.run import RunFolder
from etude.run.checkpoints import list_checkpoints, step_of
from etude.untrusted import open_plain

MOST_QUESTIONS = 100
_CARD_BYTES = 1 << 20
T = TypeVar("T")
Progress = Callable[[int, int], None]
"""Callback (questions and texts answered, in all)."""


@dataclass
class Counted:
    """Returns what it is called with, and reports each as one of ``total``."""

    progress: Progress | None
    total: int
    finished: int = 0

    def __call__(self, result: T) -> T:
        self.finished += 1
        if self.progress is not None:
            self.progress(self.finished, self.total)
        return result


@dataclass(frozen=True)
class Base:
    """The model that a run began with: its model folder, how the user named it, and the hash of its files."""

    folder: Path
    source: str
    hash: str

    def require_other(self, checkpoint: Path) -> int:
        """Return the step of a checkpoint. Raises InputError if it is the base itself."""
        step = step_of(checkpoint)
        if checkpoint.resolve() == self.folder.resolve():
            raise InputError(
                f"step {step} is the base itself, which learned nothing yet: choose a later step"
            )
        return step


@dataclass(frozen=True)
class ExaminedTuning:
    """A run that was tuned on examples: its folder, base, data, which tokens of them it trained, and its settings."""

    folder: Path
    base: Base
    corpus: Corpus
    tokenizer: EtudeTokenizer
    mask: Mask
    settings: Resolved | None = None

    @classmethod
    def of(cls, path: Path) -> ExaminedTuning:
        """Open a run.

        Raises:
            InputError: it was not tuned on conversations or pairs.
        """
        examined = ExaminedRun.of(path)
        if examined is None:
            raise InputError(
                f"{path} is a model without a run, and the suite tuning asks the held-out questions of a run: name a "
                "run that was tuned on conversations"
            )
        corpus = examined.data.corpus
        facts = recorded_facts(RunFolder(examined.folder).read_manifest(sealed=False))
        if not corpus.facts.get(EXAMPLES):
            raise InputError(
                f"{examined.folder} was trained on plain text, and the suite tuning asks held-out questions: name a "
                "run that was tuned on conversations"
            )
        if facts is None:
            raise InputError(
                f"{examined.folder} began with random weights, so there is no base to compare it with: name a run that "
                "was tuned with --from"
            )
        base = Base(_base_of(examined, facts.hash), facts.source, facts.hash)
        settings = examined.settings
        return cls(examined.folder, base, corpus, examined.data.tokenizer, settings.data.mask, settings)


def details_folder(run: Path) -> Path:
    """Return the folder of a run that holds the answers of its reports."""
    return run / "derived" / "tuning"


def record_report(
    run: Path, checkpoint: Path, report: Mapping[str, Any], answers: Sequence[Mapping[str, Any]]
) -> None:
    """Write a report with its ``answers`` to its folder, and add it to tuning.jsonl and to the model card."""
    write_json(details_folder(run) / f"{checkpoint.name}.json", {**report, "answers": answers})
    RunFolder(run).tuning.append(dict(report))
    _write_card(checkpoint, report)


def _write_card(checkpoint: Path, report: Mapping[str, Any]) -> None:
    """Add the report to the model card of the checkpoint, which has no checksum; without a card, to nothing."""
    file = checkpoint / CARD
    try:
        with open_plain(file) as opened:
            card = opened.read(_CARD_BYTES).decode("utf-8")
    except (OSError, UnicodeDecodeError, InputError):
        return
    if len(card.encode()) < _CARD_BYTES:
        write_atomic(file, with_tuning(card, report))


def _base_of(examined: ExaminedRun, expected: str) -> Path:
    """Return the model folder of the base: the first checkpoint, or what the settings name for a fork.

    Raises:
        InputError: that has not the ``expected`` hash any more.
    """
    folders = list_checkpoints(examined.folder / "checkpoints")
    if folders and step_of(folders[0]) == 0:
        return folders[0]
    named = open_base(examined.settings.model.base)
    if named.hash != expected:
        raise InputError(
            f"{named.source} is not the model that {examined.folder} began with any more: put that model back, or ask "
            "the run that this one was forked from"
        )
    return named.folder
