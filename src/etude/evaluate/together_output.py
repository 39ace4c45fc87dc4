"""The scores of several models on the same items: as one table with intervals and nulls, or as one JSON object."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from etude.evaluate.output import Output, print_output
from etude.evaluate.questions import Questions
from etude.evaluate.records import estimate_to_json
from etude.evaluate.results import Measured, ProbeResult
from etude.evaluate.statistics import ABOVE_BY_LUCK, Estimate, mean_difference
from etude.show.lines import print_line
from etude.show.named_table import Column, NamedTable
from etude.untrusted import shown


@dataclass(frozen=True)
class ModelResults:
    """What one model answered. seed, step: None for a model without a run; notes: what limits the conclusions."""

    name: str
    folder: Path
    seed: int | None
    step: int | None
    results: tuple[ProbeResult, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Difference:
    """How much more of a probe's items a model has right than the first model has, on the same items."""

    title: str
    model: str
    first: str
    share: Estimate


@dataclass(frozen=True)
class Together:
    """The answers of all models to the same questions.

    probes_from: of the named text, None without one; lines: how the text was used; commit: Etude's.
    """

    models: Sequence[ModelResults]
    questions: Questions
    probes_from: dict[str, Any] | None
    lines: Sequence[str]
    commit: str | None

    def differences(self) -> Iterator[Difference]:
        """Yield the difference of each further model from the first, probe by probe."""
        first, *others = self.models
        for other in others:
            for ours, theirs in zip(first.results, other.results, strict=True):
                pairs = zip(theirs.model.credits, ours.model.credits, strict=True)
                groups = [item.group or f"item {at}" for at, item in enumerate(ours.probe.items)]
                share = mean_difference([b - a for b, a in pairs], groups)
                yield Difference(ours.probe.title, other.name, first.name, share)

    def output_of(self, model: ModelResults) -> Output:
        """Return the evaluation of one of the models."""
        notes = model.notes if len(self.models) > 1 else (*self.lines, *model.notes)
        return Output(
            model.folder, self.questions, model.results, None, model.seed, model.step, self.commit, notes
        )

    def to_json(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints; for a single model, that of its evaluation with its text."""
        outputs = [self.output_of(model).to_json() for model in self.models]
        if len(outputs) == 1:
            return {**outputs[0], "probes_from": self.probes_from}
        shared = ("questions", "left_out", "text", "commit")
        return {
            "questions": self.questions.hash,
            "commit": self.commit,
            "probes_from": self.probes_from,
            "left_out": self.questions.skipped,
            "models": [
                {"name": model.name, **{key: value for key, value in output.items() if key not in shared}}
                for model, output in zip(self.models, outputs, strict=True)
            ],
            "differences": [
                {
                    "probe": difference.title,
                    "model": difference.model,
                    "first": difference.first,
                    **estimate_to_json(difference.share),
                }
                for difference in self.differences()
            ],
        }


def print_together(together: Together, as_json: bool, console: Console) -> None:
    """Print the scores: one model as ``etude eval`` prints it, several in one table."""
    if as_json:
        print(json.dumps(together.to_json(), ensure_ascii=False, allow_nan=False))
        return
    if len(together.models) == 1:
        print_output(together.output_of(together.models[0]), False, console)
        return
    console.print(table_of(together))
    first = together.models[0]
    lines = [f"skipped: {title}: {why}" for title, why in together.questions.skipped.items()]
    lines += together.lines
    for model in together.models:
        lines += [f"{model.name}: {note}" for note in model.notes]
    count = len(first.results) * len(together.models)
    lines += [
        f"difference: share right minus that of {first.name} on the same items; 95 % intervals; items of one document "
        "count as one",
        f"if all {count} scores were at chance, {ABOVE_BY_LUCK * count:.1f} of them would be above it by luck",
        f"questions {together.questions.hash}, answered by "
        + " and ".join(str(model.folder) for model in together.models),
    ]
    for line in lines:
        print_line(console, line)


def table_of(together: Together) -> NamedTable:
    """Make a table with a row for each probe and model."""
    differences = {(one.title, one.model): one.share for one in together.differences()}
    columns = [
        Column("model", wraps=True),
        *(
            Column(heading, right=True)
            for heading in ("right (95 %)", "difference (95 %)", "chance", "n-gram", "random")
        ),
    ]
    rows = []
    for at, probe in enumerate(together.questions.probes):
        for model in together.models:
            result = model.results[at]
            cells = [
                shown(model.name),
                _share(result.model),
                _difference(differences.get((probe.title, model.name))),
                f"{probe.chance:.2f}",
                _null(result.counting),
                _null(result.random),
            ]
            rows.append((Text(shown(probe.title)), list(map(Text, cells))))
    return NamedTable("ability", columns, rows)


def _share(measured: Measured) -> str:
    interval = measured.accuracy.interval
    return f"{measured.accuracy.value:.2f} ({interval.low:.2f}-{interval.high:.2f})"


def _difference(share: Estimate | None) -> str:
    if share is None:
        return ""
    return f"{share.value:+.2f} ({share.interval.low:+.2f} to {share.interval.high:+.2f})"


def _null(measured: Measured | None) -> str:
    return "?" if measured is None else f"{measured.accuracy.value:.2f}"
