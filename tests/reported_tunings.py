"""Write reports on a tuning into a run folder."""

from __future__ import annotations

from pathlib import Path

from etude.evaluate.tuning.paired_tests import ratio
from etude.evaluate.tuning.summary import Figures, TextCost, TuningReport
from etude.evaluate.tuning.verdict import Paired, Rise, verdict_of
from etude.run import RunFolder


def report(step: int, rise: float = 0.2, documents: int = 3) -> TuningReport:
    """Return a report on a step: better than prompting, with a rise of bits per byte on source code."""
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
    return TuningReport(*(step, "smol", "h", "q", 8, 8, 8, 8, {}, systems, 2, (cost,), verdict, "fp32", 8))


def write(run: Path, *reports: TuningReport) -> None:
    """Append reports to tuning.jsonl of a run."""
    RunFolder(run).tuning.append(*(each.to_json() for each in reports))
