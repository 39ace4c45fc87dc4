"""Write and read a run's probes.jsonl: the score of each checkpoint on each probe, one JSON object per line."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import etude
from etude.errors import InputError
from etude.evaluate.results import SCHEMA, Exact, Measured, ProbeResult
from etude.evaluate.statistics import Estimate, Interval
from etude.messages import command
from etude.run import RunFolder
from etude.run.folder import PROBES
from etude.run.record import RunRecord
from etude.untrusted import shown

FILE = PROBES
MOST_NAMES = 200
"""Most characters in the name of a probe, a condition or a suite."""
MOST_WORDS = 2000
"""Most characters in a sentence."""


@dataclass(frozen=True)
class Where:
    """The checkpoint that answered.

    flops: of training up to it; num_parameters: usually without the embedding; val_loss: nats per token, None if
    unknown; suite: the name of the suite, with its version.
    """

    seed: int
    step: int
    tokens_seen: int
    flops: float
    num_parameters: int
    val_loss: float | None
    suite: str
    commit: str | None = None
    version: str = etude.__version__

    @property
    def knows_tokens(self) -> bool:
        """Whether the tokens seen and the FLOPs are known, which they are not of a model that Etude did not train."""
        return self.step == 0 or self.tokens_seen > 0


@dataclass(frozen=True)
class ProbeRecord:
    """A line of probes.jsonl. `items` is the hash of the items: scores on other items are not comparable."""

    probe: str
    condition: str
    asks: str
    held_out: str
    where: Where
    model: Measured
    counting: Measured | None
    random: Measured | None
    chance: float
    label: str
    items: str
    num_items: int
    dropped: int

    @property
    def title(self) -> str:
        return f"{self.probe}, {self.condition}" if self.condition else self.probe


@dataclass(frozen=True)
class Records:
    """All records of a file, in the order of steps, and the number of lines that are not records."""

    records: tuple[ProbeRecord, ...]
    damaged: int


def to_json(result: ProbeResult, where: Where) -> dict[str, Any]:
    """Return one line of probes.jsonl."""
    probe = result.probe
    return {
        "schema": SCHEMA,
        "event": "probe",
        "step": where.step,
        "tokens_seen": where.tokens_seen,
        "flops": _finite(where.flops),
        "num_parameters": where.num_parameters,
        "val_loss": None if where.val_loss is None else _finite(where.val_loss),
        "seed": where.seed,
        "suite": where.suite,
        "probe": probe.name,
        "condition": probe.condition,
        "asks": probe.asks,
        "held_out": probe.held_out,
        **_measured_to_json(result.model),
        "chance": probe.chance,
        "counting": None if result.counting is None else _measured_to_json(result.counting),
        "random": None if result.random is None else _measured_to_json(result.random),
        "label": result.label,
        "items": probe.hash,
        "num_items": len(probe.items),
        "dropped": probe.dropped,
        "etude": where.version,
        "commit": where.commit,
    }


def write_records(run: Path, results: Sequence[ProbeResult], where: Where) -> None:
    """Append a checkpoint's scores to the run's probes.jsonl."""
    RunFolder(run).probes.append(*(to_json(result, where) for result in results))


def read_records(run: Path, *, allow_none: bool = False) -> Records:
    """Read probes.jsonl of a run folder, which is untrusted: lines that are not records are skipped and counted.

    Of two records of one checkpoint and the same items, the later one counts.
    Raises InputError if the file is missing, none of its lines is a record (unless `allow_none`), or a newer etude
    wrote it.
    """
    record, file = RunRecord(RunFolder(run)), run / FILE
    if not file.is_file():
        raise InputError(
            f"{run} has no {FILE}: evaluate its checkpoints first, with `{command('eval', run)}`"
        )
    by_key: dict[tuple[Any, ...], ProbeRecord] = {}
    damaged = 0
    for line in record.probe_lines():
        if type(line.get("schema")) is int and line["schema"] > SCHEMA:
            raise InputError(
                f"{file} has schema {shown(line['schema'])}; this etude reads {SCHEMA}: update it"
            )
        try:
            result = from_json(line)
        except (KeyError, TypeError, ValueError, OverflowError):
            damaged += 1
            continue
        by_key[result.probe, result.condition, result.items, result.where.step] = result
    if not by_key and not allow_none:
        raise InputError(f"{file} holds no record of a probe: evaluate again, with `{command('eval', run)}`")
    ordered = sorted(by_key.values(), key=lambda record: record.where.step)
    return Records(tuple(ordered), damaged)


def from_json(line: Mapping[str, Any]) -> ProbeRecord:
    """Invert `to_json`. Raises KeyError, TypeError or ValueError if `line` is something else."""
    if line["schema"] != SCHEMA or line["event"] != "probe":
        raise ValueError("not the record of a probe")
    val_loss = line["val_loss"]
    where = Where(
        seed=count_from_json(line["seed"]),
        step=count_from_json(line["step"]),
        tokens_seen=count_from_json(line["tokens_seen"]),
        flops=_number(line["flops"], 0, 1e40),
        num_parameters=count_from_json(line["num_parameters"]),
        val_loss=None if val_loss is None else _number(val_loss, 0, 1e6),
        suite=text_from_json(line["suite"], MOST_NAMES),
        commit=None if line["commit"] is None else text_from_json(line["commit"], MOST_NAMES),
        version=text_from_json(line["etude"], MOST_NAMES),
    )
    return ProbeRecord(
        probe=_name(line["probe"]),
        condition=text_from_json(line["condition"], MOST_NAMES),
        asks=text_from_json(line["asks"], MOST_WORDS),
        held_out=text_from_json(line["held_out"], MOST_WORDS),
        where=where,
        model=_measured(line),
        counting=None if line["counting"] is None else _measured(line["counting"]),
        random=None if line["random"] is None else _measured(line["random"]),
        chance=_number(line["chance"], 0, 1),
        label=text_from_json(line["label"], MOST_NAMES),
        items=_name(line["items"]),
        num_items=count_from_json(line["num_items"]),
        dropped=count_from_json(line["dropped"]),
    )


def _measured_to_json(measured: Measured) -> dict[str, Any]:
    exact = measured.exact
    return {
        "accuracy": estimate_to_json(measured.accuracy),
        "margin": estimate_to_json(measured.margin),
        "brier": _finite(measured.brier),
        "exact": None
        if exact is None
        else {
            "exact": estimate_to_json(exact.exact),
            "token": estimate_to_json(exact.token),
            "independence": _finite(exact.independence),
            "nats_per_token": estimate_to_json(exact.nats_per_token),
        },
        "num_cut": measured.num_cut,
    }


def _measured(content: Mapping[str, Any]) -> Measured:
    exact = content["exact"]
    return Measured(
        accuracy=estimate_from_json(content["accuracy"], 0, 1),
        margin=estimate_from_json(content["margin"]),
        brier=_number(content["brier"], 0, 2.000001),
        exact=None
        if exact is None
        else Exact(
            estimate_from_json(exact["exact"], 0, 1),
            estimate_from_json(exact["token"], 0, 1),
            _number(exact["independence"], 0, 1),
            estimate_from_json(exact["nats_per_token"]),
        ),
        num_cut=count_from_json(content["num_cut"]),
    )


def estimate_to_json(estimate: Estimate) -> dict[str, Any]:
    """Convert an estimate; an infinite error or interval (of a single group) becomes null, as JSON has no infinity."""
    return {
        "value": _finite(estimate.value),
        "standard_error": _or_none(estimate.standard_error),
        "low": _or_none(estimate.interval.low),
        "high": _or_none(estimate.interval.high),
        "count": estimate.count,
    }


def estimate_from_json(content: Mapping[str, Any], low: float = -1e9, high: float = 1e9) -> Estimate:
    value = _number(content["value"], low, high)
    error, bottom, top = content["standard_error"], content["low"], content["high"]
    interval = Interval(
        -math.inf if bottom is None else _number(bottom, -1e9, value + 1e-9),
        math.inf if top is None else _number(top, value - 1e-9, 1e9),
    )
    return Estimate(
        value,
        math.inf if error is None else _number(error, 0, 1e9),
        interval,
        count_from_json(content["count"]),
    )


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"a score must be a finite number, not {value}")
    return value


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _number(value: Any, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(f"{shown(value)} is not a number from {low} to {high}")
    return float(value)


def count_from_json(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError(f"{shown(value)} is not a count")
    return value


def text_from_json(value: Any, most: int) -> str:
    if not isinstance(value, str) or len(value) > most:
        raise ValueError("not a text of a sensible length")
    return value


def _name(value: Any) -> str:
    if not text_from_json(value, MOST_NAMES):
        raise ValueError("a name is empty")
    return str(value)
