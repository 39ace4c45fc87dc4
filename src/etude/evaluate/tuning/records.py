"""Read a run's tuning.jsonl: what its tuning gained and cost, one report per step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude.errors import InputError
from etude.evaluate.records import (
    MOST_NAMES,
    MOST_WORDS,
    count_from_json,
    estimate_from_json,
    text_from_json,
)
from etude.evaluate.statistics import Estimate
from etude.evaluate.tuning.summary import MOST_KINDS, SCHEMA
from etude.messages import command
from etude.run import RunFolder
from etude.untrusted import MAX_JSON_BYTES

MOST_SYSTEMS = 20
MOST_PROBES = 50


@dataclass(frozen=True)
class RecordedSystem:
    """The figures of one system, see :class:`etude.evaluate.tuning.summary.Figures`."""

    name: str
    loss: Estimate
    exact: Estimate | None
    ended: Estimate | None
    copies: Estimate | None
    wrong_copies: Estimate | None


@dataclass(frozen=True)
class RecordedKind:
    """Right answers by kind of question, see :class:`etude.evaluate.tuning.summary.KindFigures`."""

    name: str
    asked: int
    base: Estimate
    prompted: Estimate
    tuned: Estimate


@dataclass(frozen=True)
class RecordedNull:
    """The share of right answers of a rule without a language model."""

    name: str
    exact: Estimate


@dataclass(frozen=True)
class RecordedText:
    """Bits per byte on a reference text before and after."""

    name: str
    base: float
    tuned: float
    rise: Estimate


@dataclass(frozen=True)
class RecordedProbe:
    """The share of right answers to a probe of general abilities before and after."""

    name: str
    asks: str
    chance: float
    num_items: int
    base: Estimate
    tuned: Estimate
    change: Estimate


@dataclass(frozen=True)
class RecordedPairs:
    """The figures of one model on held-out pairs, see :class:`etude.evaluate.tuning.pair_verdict.PairFigures`."""

    name: str
    won: Estimate
    gained: Estimate | None
    chosen: Estimate
    rejected: Estimate


@dataclass(frozen=True)
class RecordedReport:
    """A line of tuning.jsonl.

    Attributes:
        systems: those that were asked questions; none for a run on pairs.
        pairs: the base and the tuned model, of a run on pairs; else none.
        probes: general abilities; none where they were not asked.
        probes_dropped: whether they were not asked for want of time.
        nulls: rules without a language model, of a classification; else none.
        kinds: of questions, where the data name them.
        pair_changes: of the log-probabilities of chosen and of rejected answers; None for other runs.
    """

    step: int
    base: str
    asked: int
    best_examples: int
    systems: tuple[RecordedSystem, ...]
    texts: tuple[RecordedText, ...]
    claims: tuple[str, ...]
    sentence: str
    error_rates: str
    pairs: tuple[RecordedPairs, ...] = ()
    pair_changes: tuple[Estimate, Estimate] | None = None
    probes: tuple[RecordedProbe, ...] = ()
    probes_dropped: bool = False
    nulls: tuple[RecordedNull, ...] = ()
    kinds: tuple[RecordedKind, ...] = ()


def read_reports(run: Path) -> list[RecordedReport]:
    """Return the last report on each step of a run, which is untrusted, in the order of steps; empty without any.

    Raises:
        InputError: the file is implausibly long, or none of its lines is a report.
    """
    log = RunFolder(run).tuning
    if not log.path.is_file():
        return []
    if log.path.stat().st_size > MAX_JSON_BYTES:
        raise InputError(f"{log.path} is damaged (longer than {MAX_JSON_BYTES:,} bytes): restore it")
    reports: dict[int, RecordedReport] = {}
    for line in log.read():
        try:
            report = from_json(line)
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
            continue
        reports[report.step] = report
    if not reports:
        raise InputError(
            f"{log.path} holds no report: type `{command('eval', run, '--suite', 'tuning')}` to make one"
        )
    return [reports[step] for step in sorted(reports)]


def from_json(line: Mapping[str, Any]) -> RecordedReport:
    """Return the report in a line. Raises KeyError, TypeError or ValueError if it is something else."""
    if line["schema"] != SCHEMA or line["event"] != "tuning":
        raise ValueError("not a report on a tuning")
    pairs, texts, verdict = line.get("pairs"), line["texts"], line["verdict"]
    systems = line["systems"] if pairs is None else []
    models = [] if pairs is None else pairs["models"]
    if not 1 < len(systems) + len(models) <= MOST_SYSTEMS or len(texts) > MOST_SYSTEMS:
        raise ValueError("not a plausible number of systems")
    return RecordedReport(
        count_from_json(line["step"]),
        text_from_json(line["base"]["source"], MOST_WORDS),
        count_from_json(line["questions"]["asked"]),
        count_from_json(line["best_examples"]) if pairs is None else 0,
        tuple(_system(system) for system in systems),
        tuple(_text(text) for text in texts),
        tuple(text_from_json(claim, MOST_NAMES) for claim in verdict["claims"][:MOST_SYSTEMS]),
        text_from_json(verdict["sentence"], MOST_WORDS),
        text_from_json(verdict["error_rates"], MOST_WORDS),
        tuple(_pairs(model) for model in models),
        None
        if pairs is None
        else (estimate_from_json(pairs["change"]["chosen"]), estimate_from_json(pairs["change"]["rejected"])),
        tuple(_probe(probe) for probe in line.get("probes", [])[:MOST_PROBES]),
        line.get("probes_dropped") is True,
        tuple(_null(null) for null in line.get("nulls", [])[:MOST_SYSTEMS]),
        tuple(_kind(kind) for kind in line.get("kinds", [])[:MOST_KINDS]),
    )


def _null(content: Mapping[str, Any]) -> RecordedNull:
    return RecordedNull(
        text_from_json(content["name"], MOST_NAMES), estimate_from_json(content["exact"], 0, 1)
    )


def _kind(content: Mapping[str, Any]) -> RecordedKind:
    return RecordedKind(
        text_from_json(content["name"], MOST_NAMES),
        count_from_json(content["asked"]),
        estimate_from_json(content["base"], 0, 1),
        estimate_from_json(content["prompted"], 0, 1),
        estimate_from_json(content["tuned"], 0, 1),
    )


def _probe(content: Mapping[str, Any]) -> RecordedProbe:
    chance = float(content["chance"])
    if not 0 <= chance <= 1:
        raise ValueError("not a share")
    return RecordedProbe(
        text_from_json(content["name"], MOST_NAMES),
        text_from_json(content["asks"], MOST_WORDS),
        chance,
        count_from_json(content["items"]),
        estimate_from_json(content["base"], 0, 1),
        estimate_from_json(content["tuned"], 0, 1),
        estimate_from_json(content["change"], -1, 1),
    )


def _pairs(content: Mapping[str, Any]) -> RecordedPairs:
    gained = content["gained"]
    return RecordedPairs(
        text_from_json(content["name"], MOST_NAMES),
        estimate_from_json(content["won"], 0, 1),
        None if gained is None else estimate_from_json(gained, 0, 1),
        estimate_from_json(content["chosen"]),
        estimate_from_json(content["rejected"]),
    )


def _system(content: Mapping[str, Any]) -> RecordedSystem:
    shares = (content[key] for key in ("exact", "ended", "copies", "wrong_copies"))
    return RecordedSystem(
        text_from_json(content["name"], MOST_NAMES),
        estimate_from_json(content["loss"]),
        *(None if share is None else estimate_from_json(share, 0, 1) for share in shares),
    )


def _text(content: Mapping[str, Any]) -> RecordedText:
    rise = estimate_from_json(content["rise"])
    base, tuned = float(content["base"]), float(content["tuned"])
    if not (0 <= base < 1e6 and 0 <= tuned < 1e6):
        raise ValueError("not bits per byte")
    return RecordedText(text_from_json(content["name"], MOST_NAMES), base, tuned, rise)
