"""Everything that an evaluation reports: as lines and tables, or as one JSON object."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from etude.evaluate.questions import Questions
from etude.evaluate.records import Where, to_json
from etude.evaluate.results import ProbeResult
from etude.evaluate.statistics import ABOVE_BY_LUCK
from etude.evaluate.tables import result_tables
from etude.evaluate.whole_text import WholeText, lines_of
from etude.show.lines import print_line

UNKNOWN = "what it has read is not known: it may have read these texts, and a right answer may be remembered"
"""Of a model that Etude did not train."""


@dataclass(frozen=True)
class Output:
    """The results of an evaluation.

    seed, step: None for a model folder; commit: Etude's; notes: what limits the conclusions, in sentences.
    """

    checkpoint: Path
    questions: Questions
    results: Sequence[ProbeResult]
    whole: WholeText | None
    seed: int | None
    step: int | None
    commit: str | None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints."""
        where = Where(0, 0, 0, 0.0, 0, None, "", self.commit)
        lines = [to_json(result, where) for result in self.results]
        dropped = ("event", "step", "tokens_seen", "flops", "num_parameters", "val_loss", "seed", "suite")
        return {
            "checkpoint": str(self.checkpoint),
            "seed": self.seed,
            "step": self.step,
            "commit": self.commit,
            "questions": self.questions.hash if self.results else None,
            "probes": [{key: value for key, value in line.items() if key not in dropped} for line in lines],
            "left_out": self.questions.skipped,
            "text": None if self.whole is None else self.whole.to_json(),
            "notes": list(self.notes),
        }


def print_output(output: Output, as_json: bool, console: Console) -> None:
    """Print the evaluation, as lines and tables or as one JSON object."""
    if as_json:
        print(json.dumps(output.to_json(), ensure_ascii=False, allow_nan=False))
        return
    whole = output.whole
    if whole is not None:
        for line in lines_of(whole):
            print_line(console, line)
    for table in result_tables(output.results):
        console.print(table)
    lines = [f"skipped: {title}: {why}" for title, why in output.questions.skipped.items()]
    if count := len(output.results):
        lines.append(
            f"if all {count} were at chance, {ABOVE_BY_LUCK * count:.1f} of them would be above it by luck"
        )
    lines += output.notes
    answered = f"questions {output.questions.hash}, answered by" if output.results else "only measures, of"
    for line in (*lines, f"{answered} {output.checkpoint}"):
        print_line(console, line)
