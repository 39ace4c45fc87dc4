"""A tuned run with what every report on it needs, whether it was tuned on conversations or on pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from etude.data.corpus.corpus import Corpus
from etude.data.files import key_of
from etude.data.reference import ReferenceText, built_in_texts
from etude.evaluate.tuning.asking import Respondent
from etude.evaluate.tuning.costs import Compared, Costs, general_probes
from etude.evaluate.tuning.examined import Base, details_folder
from etude.setting_types import Auto


@dataclass
class Tuned:
    """A run that was tuned, with the questions or pairs that it holds out.

    Attributes:
        folder: of the run.
        held_out: how many questions or pairs the run has.
        skipped: why some of the chosen ones cannot be used, with their number.
        respondent: the base, which answers.
    """

    folder: Path
    base: Base
    corpus: Corpus
    held_out: int
    skipped: Counter[str]
    threads: int | Auto
    texts: tuple[ReferenceText, ...] = field(default_factory=built_in_texts, kw_only=True)
    respondent: Respondent = field(init=False)

    def __post_init__(self) -> None:
        self.respondent = self._respondent(self.base.folder)

    def beside(self, checkpoint: Path, probes: bool) -> tuple[int, Respondent, Costs]:
        """Return the step of a checkpoint, the model there, and what both models are measured on.

        Raises:
            InputError: the checkpoint is the base itself.
        """
        step = self.base.require_other(checkpoint)
        costs = Costs(self.texts, general_probes(self.corpus) if probes else ())
        return step, self._respondent(checkpoint), costs

    def head(
        self, step: int, keys: Sequence[str], groups: Sequence[str], compared: Compared
    ) -> Mapping[str, Any]:
        """Return the fields of :class:`etude.evaluate.tuning.summary.Report`.

        ``keys`` are those of the questions or pairs that were used, and ``groups`` which of them count as one.
        """
        return {
            "step": step,
            "base": self.base.source,
            "base_hash": self.base.hash,
            "questions": key_of(list(keys)),
            "held_out": self.held_out,
            "asked": len(keys),
            "groups": len(set(groups)),
            "skipped": dict(self.skipped),
            **compared._asdict(),
        }

    def _respondent(self, model: Path) -> Respondent:
        return Respondent(model, details_folder(self.folder) / "parts", self.threads)
