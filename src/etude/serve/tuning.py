"""What a tuning gained and cost, for the page: the reports of tuning.jsonl."""

from __future__ import annotations

import math
from pathlib import Path

from etude.evaluate.statistics import Estimate
from etude.evaluate.tuning.records import (
    RecordedKind,
    RecordedPairs,
    RecordedProbe,
    RecordedReport,
    RecordedSystem,
    RecordedText,
    read_reports,
)
from etude.serve.tuning_types import (
    TuningFigure,
    TuningKind,
    TuningPairs,
    TuningProbe,
    TuningStep,
    TuningSystem,
    TuningText,
)


def tuning_of(run: Path) -> list[TuningStep]:
    """Return the reports of a run by step; empty without any.

    Raises:
        InputError: the file is damaged.
    """
    return [_step(report) for report in read_reports(run)]


def _step(report: RecordedReport) -> TuningStep:
    return {
        "step": report.step,
        "base": report.base,
        "asked": report.asked,
        "best_examples": report.best_examples,
        "systems": [_system(system) for system in report.systems],
        "nulls": [{"name": null.name, "right": _figure(null.exact)} for null in report.nulls],
        "kinds": [_kind(kind) for kind in report.kinds],
        "pairs": [_pairs(model) for model in report.pairs],
        "pair_changes": [_figure(change) for change in report.pair_changes or ()],
        "texts": [_text(text) for text in report.texts],
        "probes": [_probe(probe) for probe in report.probes],
        "probes_dropped": report.probes_dropped,
        "claims": list(report.claims),
        "verdict": report.sentence,
        "error_rates": report.error_rates,
    }


def _system(system: RecordedSystem) -> TuningSystem:
    return {
        "name": system.name,
        "loss": _figure(system.loss),
        "right": None if system.exact is None else _figure(system.exact),
        "ended": None if system.ended is None else system.ended.value,
        "copies": None if system.copies is None else system.copies.value,
        "wrong_copies": None if system.wrong_copies is None else system.wrong_copies.value,
    }


def _kind(kind: RecordedKind) -> TuningKind:
    return {
        "name": kind.name,
        "asked": kind.asked,
        "base": _figure(kind.base),
        "prompted": _figure(kind.prompted),
        "tuned": _figure(kind.tuned),
    }


def _pairs(model: RecordedPairs) -> TuningPairs:
    return {
        "name": model.name,
        "won": _figure(model.won),
        "gained": None if model.gained is None else _figure(model.gained),
        "chosen": _figure(model.chosen),
        "rejected": _figure(model.rejected),
    }


def _probe(probe: RecordedProbe) -> TuningProbe:
    return {
        "name": probe.name,
        "asks": probe.asks,
        "chance": probe.chance,
        "items": probe.num_items,
        "base": _figure(probe.base),
        "tuned": _figure(probe.tuned),
        "change": _figure(probe.change),
    }


def _text(text: RecordedText) -> TuningText:
    return {"name": text.name, "base": text.base, "tuned": text.tuned, "rise": _figure(text.rise)}


def _figure(estimate: Estimate) -> TuningFigure:
    low, high = estimate.interval.low, estimate.interval.high
    return {
        "value": estimate.value,
        "low": low if math.isfinite(low) else None,
        "high": high if math.isfinite(high) else None,
    }
