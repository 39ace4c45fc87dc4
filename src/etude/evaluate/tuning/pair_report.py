"""Make the report on a run tuned on pairs: score the held-out pairs with the base and the tuned model, and compare."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude.errors import InputError
from etude.evaluate.records import estimate_to_json
from etude.evaluate.tuning.asking import BLOCK
from etude.evaluate.tuning.examined import Counted, ExaminedTuning, Progress, record_report
from etude.evaluate.tuning.pair_scores import HeldOutPair, PairScores, held_out_pairs, joined, score_pairs
from etude.evaluate.tuning.pair_verdict import (
    ERROR_RATES,
    PairFigures,
    PairsVerdict,
    pair_figures,
    pairs_verdict,
)
from etude.evaluate.tuning.summary import Report
from etude.evaluate.tuning.tuned import Tuned
from etude.model.folder import load_config
from etude.setting_types import Auto


@dataclass(frozen=True, kw_only=True)
class PairsReport(Report):
    """What a tuning on pairs gained and what it cost at one step. ``models``: the base, then the tuned model."""

    models: tuple[PairFigures, PairFigures]
    verdict: PairsVerdict

    def to_json(self) -> dict[str, Any]:
        """Return the line of tuning.jsonl."""
        verdict = self.verdict
        return {
            **super().to_json(),
            "pairs": {
                "models": [_figures_to_json(model) for model in self.models],
                "change": {
                    "chosen": estimate_to_json(verdict.chosen),
                    "rejected": estimate_to_json(verdict.rejected),
                },
            },
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
class TunedPairs(Tuned):
    """A run tuned on pairs, with the held-out pairs that can be scored."""

    pairs: list[HeldOutPair]

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
        return cls(folder, base, tuning.corpus, held_out, skipped, threads, pairs)

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
        step, tuned, costs = self.beside(checkpoint, probes)
        blocks = [self.pairs[first : first + BLOCK] for first in range(0, len(self.pairs), BLOCK)]
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
        compared = costs.compare(before, costs.read(tuned, count))
        pairs = self.pairs[: len(scores[0].nats)]
        groups = [pair.question for pair in pairs]
        report = PairsReport(
            **self.head(step, [pair.key for pair in pairs], groups, compared),
            models=_both_figures(step, groups, *scores),
            verdict=pairs_verdict(groups, *scores, [text.rise for text in compared.texts]),
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
