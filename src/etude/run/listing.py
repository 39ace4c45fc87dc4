"""The lists of runs, shared by ``etude runs`` and the page, and of histories that Etude did not record."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from etude.errors import InputError
from etude.run.folder import RunFolder
from etude.run.published_history import PublishedHistory, is_history
from etude.run.record import RunRecord
from etude.run.state import State, last_change, runs_in
from etude.untrusted import Unreadable, readable, refuse_links_out


@dataclass(frozen=True)
class RunLine:
    """One line of the list of runs. Unknown numbers are None.

    Attributes:
        state: see :attr:`etude.run.record.RunRecord.state`.
        changed: time of the last write to the run, in seconds since 1970.
        num_steps: the planned length in steps, as last revised.
        passed: the highest order of an n-gram model that the run has passed; 0 for none.
    """

    name: str
    state: State
    step: int
    changed: float
    num_steps: int | None = None
    loss: float | None = None  # nats per token
    val_loss: float | None = None  # nats per token
    bits_per_byte: float | None = None
    passed: int = 0
    model: str = ""
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class HistoryLine:
    """One line of the list of histories: several saved versions of a model, which are only read.

    Attributes:
        first, last: the least and the greatest step.
        duplicates: a line for each version with the weights of an earlier one.
        skipped: a line for each version that is not read.
        problem: why it cannot be read; "" if it can.
    """

    name: str
    num_versions: int = 0
    first: int = 0
    last: int = 0
    duplicates: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    problem: str = ""


def list_histories(folder: Path) -> list[HistoryLine]:
    """Return a line for every history in ``folder``, in the order of names; or the line of ``folder`` if it is one.

    Raises:
        Unreadable: this account may not read ``folder``.
    """
    if is_history(folder):
        return [_history_line(folder)]
    with readable(folder):
        names = sorted(os.listdir(folder))
    found = []
    for name in names:
        with suppress(Unreadable):
            if is_history(folder / name):
                found.append(_history_line(folder / name))
    return found


def _history_line(path: Path) -> HistoryLine:
    name = path.absolute().name
    try:
        history = PublishedHistory.at(path)
        if history is None:  # removed meanwhile
            return HistoryLine(name, problem="no version of it is left")
        same = tuple(history.same_weights(step, earlier) for step, earlier in history.duplicates.items())
    except InputError as error:
        return HistoryLine(name, problem=str(error))
    skipped = tuple(history.skipped_lines)
    return HistoryLine(name, len(history.checkpoints), min(history.checkpoints), history.last, same, skipped)


def list_runs(folder: Path, most_bytes: int | None = None) -> list[RunLine]:
    """Return a line for every run in ``folder``, the most recently changed first.

    A damaged or unreadable run is listed with that state. Logs are read backwards from their end until the newest event
    of each kind is found, and at most ``most_bytes`` of them; numbers that were not found are None.

    Raises:
        Unreadable: this account may not read ``folder``.
    """
    lines = (_line(run, most_bytes) for run in runs_in(folder))
    return sorted(lines, key=lambda line: line.changed, reverse=True)


def _line(run: RunFolder, most_bytes: int | None) -> RunLine:
    record = RunRecord(run, remember=True)
    # A complete line already: if reading fails below, it is returned with the state of the failure.
    line = RunLine(run.name, "damaged", record.newest_step({}), last_change(run, record.status))
    try:
        refuse_links_out(run.path)
        line = replace(line, state=record.state)
        newest = record.newest("step", "left_out", "eval", "rung", "length", most_bytes=most_bytes)
        line = replace(line, step=record.newest_step(newest), **_numbers(newest))
        return replace(line, **_facts(record, line, newest))
    except (Unreadable, PermissionError):
        return replace(line, state="unreadable")
    except InputError:
        return replace(line, state="damaged")


def _numbers(newest: dict[str, dict[str, Any]]) -> dict[str, Any]:
    evaluation = newest.get("eval", {})
    return {
        "loss": _number(newest.get("step", {}).get("loss")),
        "val_loss": _number(evaluation.get("val_loss")),
        "bits_per_byte": _number(evaluation.get("bits_per_byte")),
    }


def _facts(record: RunRecord, line: RunLine, newest: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the fields of a line that come from the settings, the ladder and the ``newest`` events.

    Raises:
        InputError: the settings or the ladder are damaged or unreadable.
    """
    settings, ladder = record.settings, record.ladder
    length, order = newest.get("length", {}).get("num_steps"), newest.get("rung", {}).get("order")
    if type(order) is not int:  # runs of the first edition did not log it
        order = 0 if ladder is None or line.bits_per_byte is None else ladder.passed(line.bits_per_byte)
    return {
        "num_steps": length if type(length) is int else settings.train.steps,
        "passed": order,
        "model": f"{settings.model.preset} {settings.model.hidden_size}x{settings.model.num_hidden_layers}",
        "sources": settings.data.sources,
    }


def _number(value: Any) -> float | None:
    """Return a number of a log line; None if it is missing or not plausible."""
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if known and abs(value) < 2**63 and math.isfinite(value) else None
