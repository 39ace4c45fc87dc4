"""Make the report on a run tuned on pairs: score the held-out pairs with the base and the tuned model, and compare."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from etude.data.corpus.corpus import Corpus
from etude.data.files import key_of
from etude.data.reference import ReferenceText, built_in_texts
from etude.errors import InputError
from etude.evaluate.records import estimate_to_json
from etude.evaluate.tuning.asking import BLOCK, Respondent
from etude.evaluate.tuning.costs import Costs, general_probes
from etude.evaluate.tuning.examined import Base, Counted, ExaminedTuning, Progress, record_report
from etude.evaluate.tuning.pair_scores import HeldOutPair, PairScores, held_out_pairs, joined, score_pairs
from etude.evaluate.tuning.pair_verdict import (
    ERROR_RATES,
    PairFigures,
    PairsVerdict,
    pair_figures,
    pairs_verdict,
)
from etude.evaluate.tuning.summary import SCHEMA, ProbeCost, TextCost
from etude.model.folder import load_config
from etude.setting_types import Auto


@dataclass(frozen=True)
class PairsReport:
    """What a tuning on pairs gained and what it cost at one step.

    Attributes:
        base: how the user named the base; base_hash: of its files.
        pairs: the hash of the pairs; held_out: how many the run has; asked: how many were scored; groups: with
            different questions.
        skipped: pairs that could not be scored, by reason.
        models: the base, then the tuned model.
    """

    step: int
    base: str
    base_hash: str
    pairs: str
    held_out: int
    asked: int
    groups: int
    skipped: dict[str, int]
    models: tuple[PairFigures, PairFigures]
    texts: tuple[TextCost, ...]
    verdict: PairsVerdict
    probes: tuple[ProbeCost, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the line of tuning.jsonl."""
        verdict = self.verdict
        return {
            "schema": SCHEMA,
            "event": "tuning",
            "step": self.step,
            "base": {"source": self.base, "hash": self.base_hash},
            "questions": {
                "hash": self.pairs,
                "held_out": self.held_out,
                "asked": self.asked,
                "groups": self.groups,
                "skipped": self.skipped,
            },
            "pairs": {
                "models": [_figures_to_json(model) for model in self.models],
                "change": {
                    "chosen": estimate_to_json(verdict.chosen),
                    "rejected": estimate_to_json(verdict.rejected),
                },
            },
            "texts": [text.to_json() for text in self.texts],
            "probes": [probe.to_json() for probe in self.probes],
            "verdict": {
                "claims": verdict.claims,
                "p_values": verdict.p_values,
                "sentence": verdict.sentence,
                "error_rates": ERROR_RATES,
            },
        }


def _figures_to_json(model: PairFigures) -> dict[str, Any]:
    return {
        "name": model.name,
        "won": estimate_to_json(model.won),
        "gained": None if model.gained is None else estimate_to_json(model.gained),
        "chosen": estimate_to_json(model.chosen),
        "rejected": estimate_to_json(model.rejected),
    }


@dataclass
class TunedPairs:
    """A run tuned on pairs, with the held-out pairs that can be scored.

    Attributes:
        folder: of the run.
        respondent: the base.
        held_out: how many pairs the run has.
        skipped: why some of the chosen ones cannot be scored.
    """

    folder: Path
    base: Base
    respondent: Respondent
    pairs: list[HeldOutPair]
    held_out: int
    skipped: Counter[str]
    threads: int | Auto
    corpus: Corpus
    texts: tuple[ReferenceText, ...] = field(default_factory=built_in_texts)

    @classmethod
    def of(cls, tuning: ExaminedTuning, most_pairs: int, threads: int | Auto = "auto") -> TunedPairs:
        """Choose the pairs of a run.

        Raises:
            InputError: there is none that can be scored.
        """
        folder, base = tuning.folder, tuning.base
        room = load_config(base.folder).max_position_embeddings
        documents = tuning.corpus.documents("validation")
        pairs, held_out, skipped = held_out_pairs(documents, tuning.tokenizer, tuning.mask, most_pairs, room)
        if not pairs:
            reason = next(iter(skipped), "none of its held-out rows is a pair")
            raise InputError(f"{folder} has no held-out pair to score: {reason}")
        respondent = Respondent(base.folder, folder / "derived" / "tuning" / "parts", threads)
        return cls(folder, base, respondent, pairs, held_out, skipped, threads, tuning.corpus)

    def report(
        self,
        checkpoint: Path,
        until: float | None = None,
        progress: Progress | None = None,
        *,
        probes: bool = False,
    ) -> PairsReport:
        """Report on a checkpoint, and record it; score fewer pairs if it would take until after ``until``.

        ``probes``: ask the probes of general abilities as well.

        Raises:
            InputError: the checkpoint is the base itself.
        """
        step = self.base.require_other(checkpoint)
        tuned = Respondent(checkpoint, self.respondent.within, self.threads)
        blocks = [self.pairs[first : first + BLOCK] for first in range(0, len(self.pairs), BLOCK)]
        costs = Costs(self.texts, general_probes(self.corpus) if probes else ())
        count = Counted(progress, 2 * (len(costs) + len(blocks)))
        started = time.monotonic()
        before = costs.read(self.respondent, count, until)
        base: list[PairScores] = []
        for block in blocks:
            base.append(count(score_pairs(self.respondent, block)))
            spent = time.monotonic() - started  # the tuned model takes as long
            if until is not None and time.monotonic() + spent * (1 + 1 / len(base)) > until:
                break
        self.respondent.release()  # one model in memory at a time
        scores = joined(base), joined([count(score_pairs(tuned, block)) for block in blocks[: len(base)]])
        texts, probe_costs = costs.compare(before, costs.read(tuned, count))
        pairs = self.pairs[: len(scores[0].nats)]
        groups = [pair.question for pair in pairs]
        report = PairsReport(
            step,
            self.base.source,
            self.base.hash,
            key_of([pair.key for pair in pairs]),
            self.held_out,
            len(pairs),
            len(set(groups)),
            dict(self.skipped),
            _both_figures(step, groups, *scores),
            texts,
            pairs_verdict(groups, *scores, [text.rise for text in texts]),
            probe_costs,
        )
        record_report(self.folder, checkpoint, report.to_json(), _answers(pairs, *scores))
        return report


def _both_figures(
    step: int, groups: Sequence[str], base: PairScores, tuned: PairScores
) -> tuple[PairFigures, PairFigures]:
    return pair_figures("base", base, groups), pair_figures(f"tuned, step {step:,}", tuned, groups, base)


def _answers(pairs: Sequence[HeldOutPair], base: PairScores, tuned: PairScores) -> list[dict[str, Any]]:
    """Return every pair with the log-probabilities of its answers."""
    return [
        {
            "question": pair.asked,
            "tokens": [len(pair.chosen.places), len(pair.rejected.places)],
            "base": base.nats[at].tolist(),
            "tuned": tuned.nats[at].tolist(),
        }
        for at, pair in enumerate(pairs)
    ]
