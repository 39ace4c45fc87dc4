"""Write reports on a tuning into a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from etude.evaluate.statistics import Estimate, mean_difference, proportion
from etude.evaluate.tuning.classification import COMMONEST, NAIVE_BAYES
from etude.evaluate.tuning.pair_report import PairsReport
from etude.evaluate.tuning.pair_scores import PairScores
from etude.evaluate.tuning.pair_verdict import pair_figures, pairs_verdict
from etude.evaluate.tuning.paired_tests import ratio
from etude.evaluate.tuning.summary import Figures, KindFigures, ProbeCost, TextCost, TuningReport
from etude.evaluate.tuning.verdict import Paired, Rise, verdict_of
from etude.run import RunFolder


def report(
    step: int, rise: float = 0.2, documents: int = 3, probes: bool = False, labels: bool = False
) -> TuningReport:
    """Return a report on a step: better than prompting, with a rise of bits per byte on source code.

    ``labels``: of a classification, whose questions are of two kinds.
    """
    groups = [f"fact {number}" for number in range(8)]
    results = Paired((4.0,) * 8, (2,) * 8, (3.0,) * 8, (False,) * 8, (True,) * 8)
    right = Paired((1.0,) * 8, (2,) * 8, (3.0,) * 8, (True,) * 8, (True,) * 8)
    loss = ratio(results.nats, results.tokens, groups)
    names = [f"document {number}" for number in range(documents)]
    change = Rise("source code", ratio([rise * 5] * documents, [5.0] * documents, names))
    systems = tuple(
        Figures(name, number, loss, loss, None, None, None, None)
        for name, number in (("base", 0), ("base, 2 examples", 2), (f"tuned, step {step}", 0))
    )
    verdict = verdict_of(groups, results, results, right, [change])
    cost = TextCost("source code", "d", 15, 1.0, 1.0 + rise, change)
    return TuningReport(
        **head(step, (cost,), probes),
        short=8,
        systems=systems,
        best=2,
        verdict=verdict,
        decoding="fp32",
        answers=8,
        nulls=((COMMONEST, share(0.5)), (NAIVE_BAYES, share(0.75))) if labels else (),
        kinds=tuple(KindFigures(name, 4, share(0.25), share(0.5), share(1)) for name in ("retell", "who"))
        if labels
        else (),
    )


def share(right: float) -> Estimate:
    """Return the share of right answers to four questions."""
    return proportion([float(number < 4 * right) for number in range(4)])


def head(step: int, texts: tuple[TextCost, ...] = (), probes: bool = False) -> dict[str, Any]:
    """Return what every report has; without ``probes``, they were dropped for want of time."""
    return {
        "step": step,
        "base": "smol",
        "base_hash": "h",
        "questions": "q",
        **dict.fromkeys(("held_out", "asked", "groups"), 8),
        "skipped": {},
        "texts": texts,
        "probes": (induction(),) if probes else (),
        "probes_dropped": not probes,
    }


def induction() -> ProbeCost:
    """Return a probe whose share of right answers fell from 3/4 to 1/2."""
    before, after = [1.0, 1.0, 1.0, 0.0] * 4, [1.0, 1.0, 0.0, 0.0] * 4
    change = mean_difference([b - a for a, b in zip(before, after, strict=True)])
    return ProbeCost("induction", "Which copy?", 0.5, 16, "d", proportion(before), proportion(after), change)


def report_on_pairs(step: int) -> PairsReport:
    """Return a report on a run on pairs: chosen answers gained, and both fell."""
    groups = [f"question {number}" for number in range(8)]
    tokens = np.full((8, 2), 10.0)
    base = PairScores(np.array([[-20.0 - n, -21.0 - n] for n in range(8)]), tokens)
    tuned = PairScores(base.nats + [-2.0, -9.0] + np.linspace(0, 0.1, 8)[:, None], tokens)
    figures = pair_figures("base", base, groups), pair_figures(f"tuned, step {step}", tuned, groups, base)
    return PairsReport(**head(step), models=figures, verdict=pairs_verdict(groups, base, tuned, []))


def write(run: Path, *reports: TuningReport | PairsReport) -> None:
    """Append reports to tuning.jsonl of a run."""
    RunFolder(run).tuning.append(*(each.to_json() for each in reports))
