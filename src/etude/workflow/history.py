"""What a run folder's logs say happened, read back as lists of events."""

from __future__ import annotations

import json
import math
import os
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from operator import eq
from pathlib import Path
from statistics import median
from typing import Any, TypeVar, overload

import numpy as np
import numpy.typing as npt

from etude.errors import InputError
from etude.evaluate.ladder import Ladder
from etude.files import read_json
from etude.run import RunFolder
from etude.train.events import (
    EndEvent,
    EvalEvent,
    Event,
    LeftOutEvent,
    LengthEvent,
    RungEvent,
    SampleEvent,
    StepEvent,
)
from etude.untrusted import MAX_LINE_BYTES, readable

Record = dict[str, Any]
EventType = TypeVar("EventType", bound=Event)


class Steps(Sequence[StepEvent]):
    """The events of steps, kept as columns of numbers: a million take 56 MB, where as objects they take 500."""

    def __init__(self, events: Iterable[StepEvent] = ()) -> None:
        self._columns: dict[str, array[Any]] = {
            field.name: array("q" if field.type == "int" else "d") for field in fields(StepEvent)
        }
        for event in events:
            self.append(vars(event))

    def append(self, record: Record) -> None:
        """Add an event, from its record; a missing number is NaN, or 0 where only a whole number will do."""
        for name, column in self._columns.items():
            value = record.get(name)
            if type(value) is not float or column.typecode == "q":
                value = _number(value, 0 if column.typecode == "q" else math.nan)
            column.append(value)

    def forget_from(self, step: int) -> None:
        """Remove the events of this step and of those after it; they are in order."""
        kept = bisect_left(self._columns["step"], step)
        for column in self._columns.values():
            del column[kept:]

    def column(self, name: str) -> npt.NDArray[Any]:
        """One number of every event, such as ``loss``: (events,), in float64 or int64."""
        return np.array(self._columns[name])

    def where(self, wanted: npt.NDArray[np.bool_]) -> Steps:
        """The events that are ``wanted``: (events,)."""
        return self._selected(lambda column: array(column.typecode, np.array(column)[wanted].tobytes()))

    def _selected(self, select: Callable[[array[Any]], array[Any]]) -> Steps:
        chosen = Steps()
        chosen._columns = {name: select(column) for name, column in self._columns.items()}
        return chosen

    @overload
    def __getitem__(self, index: int) -> StepEvent: ...
    @overload
    def __getitem__(self, index: slice) -> Steps: ...
    def __getitem__(self, index: int | slice) -> StepEvent | Steps:
        if isinstance(index, slice):
            return self._selected(lambda column: column[index])
        return StepEvent(**{name: column[index] for name, column in self._columns.items()})

    def __len__(self) -> int:
        return len(self._columns["step"])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(eq, self, other))

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True)
class RunHistory:
    """The events of one run, each list in the order of steps, with no step told twice."""

    folder: Path
    name: str
    steps: Steps
    evals: list[EvalEvent]
    rungs: list[RungEvent]
    samples: list[SampleEvent]
    lengths: list[LengthEvent]
    end: EndEvent | None
    ladder: Ladder | None
    skipped: list[int] = field(default_factory=list)  # steps whose update was not finite

    def __post_init__(self) -> None:
        if not isinstance(self.steps, Steps):  # a list of events
            object.__setattr__(self, "steps", Steps(self.steps))

    @classmethod
    def load(cls, folder: Path) -> RunHistory:
        """Read metrics.jsonl, samples.jsonl and ladder.json; a run that is still going may be read too.

        Damaged lines and unknown events are left out; a missing number reads as NaN. The logs are read a line at a
        time: only what is kept of them takes memory.
        Raises InputError when `folder` is no run, its ladder.json is damaged, or a log may not be read.
        """
        run = RunFolder.open(folder)
        steps, kept = _standing(
            run.metrics.events(), (EvalEvent, RungEvent, LengthEvent, EndEvent, LeftOutEvent)
        )
        _, samples = _standing(run.samples.events(), (SampleEvent,))
        ends = kept[EndEvent.name]
        return cls(
            folder,
            folder.resolve().name,
            steps,
            kept[EvalEvent.name],
            kept[RungEvent.name],
            samples[SampleEvent.name],
            kept[LengthEvent.name],
            ends[-1] if ends else None,
            _ladder(run) if run.ladder_file.exists() else None,
            [event.step for event in kept[LeftOutEvent.name]],
        )

    @property
    def num_steps(self) -> int | None:
        """Steps of the whole run, where they are not those of its settings."""
        return self.lengths[-1].num_steps if self.lengths else None

    @property
    def bits_per_byte_per_nat(self) -> float | None:
        """What one nat per token is in bits per byte under this run's tokenizer; None if not evaluated."""
        ratios = [e.bits_per_byte / e.val_loss for e in self.evals if e.val_loss > 0]
        ratios = [ratio for ratio in ratios if math.isfinite(ratio)]
        return median(ratios) if ratios else None

    @property
    def passed_at(self) -> dict[int, int]:
        """Order of each n-gram model passed, and the step: as recorded, else from the evaluations."""
        passed = {event.order: event.step for event in reversed(self.rungs)}
        if passed or self.ladder is None:
            return dict(sorted(passed.items()))
        for evaluation in self.evals:
            reached = self.ladder.passed(evaluation.bits_per_byte)
            for rung in self.ladder.rungs:
                if rung.order <= reached:
                    passed.setdefault(rung.order, evaluation.step)
        return passed


def _standing(records: Iterable[Record], kinds: Sequence[type[Event]]) -> tuple[Steps, dict[str, list[Any]]]:
    """The events of steps, and those of each of ``kinds`` by its name, without what no longer stands.

    A record whose step lies before one already read shows that the run was interrupted and resumed from an earlier
    step: what was recorded beyond it no longer happened. Of two records of one kind at one step the later one stands.
    """
    types, newest = {kind.name: kind for kind in kinds}, -1
    steps, kept = Steps(), {name: dict[tuple[int, tuple[Any, ...]], Event]() for name in types}
    for record in records:
        step, name = record.get("step"), record.get("event")
        if type(step) is not int or not 0 <= step < 2**63 or not isinstance(name, str):
            continue
        if step < newest:
            steps.forget_from(step + 1)
            for events in kept.values():
                while events and next(reversed(events))[0] > step:
                    events.popitem()
        if name == StepEvent.name:
            if step <= newest:
                steps.forget_from(step)
            steps.append(record)
        elif name in types:
            key, events = (step, _kind(record)), kept[name]
            events.pop(key, None)  # so that the later one stands where it was recorded
            events[key] = _event(types[name], record)
        newest = step
    return steps, {name: list(events.values()) for name, events in kept.items()}


def last_events(log: Path, kinds: Sequence[str]) -> dict[str, Record]:
    """The last record of each of ``kinds`` in a log, read from its end: none of the millions of others is parsed.

    Raises:
        Unreadable: this account may not read it.
    """
    found: dict[str, Record] = {}
    for block in _blocks_from_the_end(log):
        missing = [kind for kind in kinds if kind not in found]
        if not missing:
            break
        if not any(f'"{kind}"'.encode() in block for kind in missing):
            continue
        for line in reversed(block.split(b"\n")):
            if any(f'"{kind}"'.encode() in line for kind in missing):
                with suppress(ValueError, RecursionError):
                    record = json.loads(line)
                    if isinstance(record, dict) and record.get("event") in missing:
                        found.setdefault(record["event"], record)
    return found


def _blocks_from_the_end(log: Path) -> Iterator[bytes]:
    """A file's lines, in blocks of many whole lines, the last block first. A line too long for a log is not there."""
    with readable(log):
        if not log.is_file():
            return
        file = log.open("rb")
    with file:
        position, rest = file.seek(0, os.SEEK_END), b""
        while position > 0:
            size = min(MAX_LINE_BYTES, position)
            position -= size
            file.seek(position)
            begun, _, block = (file.read(size) + rest).partition(b"\n")
            rest = begun if len(begun) < MAX_LINE_BYTES else b""
            yield block
        yield rest


def _kind(record: Record) -> tuple[Any, ...]:
    order, prompt = record.get("order"), record.get("prompt")
    return (
        record["event"],
        order if isinstance(order, int) else None,
        prompt if isinstance(prompt, str) else None,
    )


def _event(kind: type[EventType], record: Record) -> EventType:
    values: dict[str, Any] = {}
    for declared in fields(kind):
        value = record.get(declared.name)
        if declared.type == "str":
            values[declared.name] = value if isinstance(value, str) else ""
        else:
            values[declared.name] = _number(value, math.nan if declared.type == "float" else 0)
    return kind(**values)


def _number(value: Any, otherwise: float) -> float:
    """``value``, of the kind of ``otherwise``; that when it is none, or one that no run can come to."""
    if isinstance(value, float) and isinstance(otherwise, float):
        return value
    whole = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**63
    return type(otherwise)(value) if whole else otherwise


def _ladder(run: RunFolder) -> Ladder:
    content = read_json(run.ladder_file)
    try:
        ladder = Ladder.from_json(content)
    except InputError as error:
        raise InputError(f"{run.path}: {error}") from None
    if not ladder.rungs:
        raise InputError(f"{run.ladder_file} is damaged (it has no rungs): put it back, or train again")
    return ladder
