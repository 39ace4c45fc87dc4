"""A study as tables for other programs: every score as CSV, every verdict as JSON."""

from __future__ import annotations

import csv
import io
import math
from typing import Any

import etude
from etude.emergence.study import Axis, LawOfStudy, Study, finite_or_none
from etude.emergence.verdict import RULES, SeedFinding
from etude.emergence.words import law_lines
from etude.evaluate.records import ProbeRecord
from etude.evaluate.statistics import Estimate

COLUMNS = (
    *("ability", "condition", "size", "run", "seed", "step", "tokens_seen", "flops", "num_parameters"),
    *("val_loss", "accuracy", "accuracy_low", "accuracy_high", "margin", "margin_error", "exact"),
    *("independence", "chance", "counting", "random", "label", "items", "num_items", "commit"),
)
"""The columns of scores.csv."""


def as_csv(study: Study) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for ability in study.abilities:
        for run_records in ability.series:
            run = next(r for r in ability.family.runs if run_records[0] in r.records)
            for record in run_records:
                row = (record.probe, record.condition, ability.family.name, run.folder.name, run.seed)
                writer.writerow([_cell(value) for value in (*row, *_figures(record))])
    return text.getvalue()


def _figures(record: ProbeRecord) -> tuple[Any, ...]:
    where, model = record.where, record.model
    tokens, flops = (where.tokens_seen, where.flops) if where.knows_tokens else (None, None)
    return (
        *(where.step, tokens, flops, where.num_parameters, where.val_loss),
        *(model.accuracy.value, model.accuracy.interval.low, model.accuracy.interval.high),
        *(model.margin.value, model.margin.standard_error),
        *((None, None) if model.exact is None else (model.exact.exact.value, model.exact.independence)),
        record.chance,
        *(None if m is None else m.accuracy.value for m in (record.counting, record.random)),
        *(record.label, record.items, record.num_items, where.commit),
    )


def _cell(value: Any) -> Any:
    """Prefix text that a spreadsheet would read as a formula, so that it stays text."""
    if isinstance(value, str) and value[:1] in "=+-@\t\r" and value:
        return f"'{value}"
    return "" if value is None or value in (math.inf, -math.inf) else value


def as_json(study: Study, law: LawOfStudy | str) -> dict[str, Any]:
    return {
        "schema": 1,
        "etude": etude.__version__,
        "rules": list(RULES),
        "notes": list(study.notes),
        "abilities": [
            {
                "ability": ability.title,
                "size": ability.family.name,
                "items": ability.last.items,
                "verdict": ability.verdict.word.value,
                "numbers": ability.verdict.numbers,
                "label": ability.label,
                "chance": ability.last.chance,
                "margin": _estimate(ability.verdict.margin),
                "accuracy": _estimate(ability.verdict.accuracy),
                "changes_at": ability.changes(Axis.STEPS),
                "seeds": [_seed(finding) for finding in ability.verdict.seeds],
            }
            for ability in study.abilities
        ],
        "law": law_lines(law),
    }


def _seed(finding: SeedFinding) -> dict[str, Any]:
    return {
        "seed": finding.seed,
        "bic_for_a_change_point": finite_or_none(finding.advantage),
        "bic_for_a_smooth_rise": finite_or_none(finding.smoothness),
        "changed": finding.changed,
        "changed_at": finding.changed_at if finding.changed else None,
        "grew_smoothly": finding.smooth,
        "shape": finding.shape,
        "rise_factor": finite_or_none(finding.rise),
        "thresholded_rise_factor": finite_or_none(finding.thresholded_rise),
        "there": finding.there,
        "there_in_margin": finding.in_margin,
        "margin": _estimate(finding.margin),
        "accuracy": _estimate(finding.accuracy),
    }


def _estimate(estimate: Estimate) -> dict[str, Any]:
    return {
        "value": estimate.value,
        "standard_error": finite_or_none(estimate.standard_error),
        "low": finite_or_none(estimate.interval.low),
        "high": finite_or_none(estimate.interval.high),
        "count": estimate.count,
    }
