"""What a run folder's logs say happened, read back as lists of events."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from etude.errors import InputError
from etude.evaluate.ladder import Ladder
from etude.files import read_json
from etude.run import RunFolder
from etude.train.events import EndEvent, EvalEvent, Event, LengthEvent, RungEvent, SampleEvent, StepEvent

Record = dict[str, Any]
EventType = TypeVar("EventType", bound=Event)


@dataclass(frozen=True)
class RunHistory:
    """The events of one run, each list in the order of steps, with no step told twice."""

    folder: Path
    name: str
    steps: list[StepEvent]
    evals: list[EvalEvent]
    rungs: list[RungEvent]
    samples: list[SampleEvent]
    lengths: list[LengthEvent]
    end: EndEvent | None
    ladder: Ladder | None

    @classmethod
    def load(cls, folder: Path) -> RunHistory:
        """Read metrics.jsonl, samples.jsonl and ladder.json; a run that is still going may be read too.

        Damaged lines and unknown events are left out; a missing number reads as NaN.
        Raises InputError when `folder` is no run or its ladder.json is damaged.
        """
        run = RunFolder.open(folder)
        metrics = _without_abandoned(run.metrics.read())
        ends = _events(EndEvent, metrics)
        return cls(
            folder,
            folder.resolve().name,
            _events(StepEvent, metrics),
            _events(EvalEvent, metrics),
            _events(RungEvent, metrics),
            _events(SampleEvent, _without_abandoned(run.samples.read())),
            _events(LengthEvent, metrics),
            ends[-1] if ends else None,
            _ladder(run) if run.ladder_file.exists() else None,
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


def _without_abandoned(records: Iterable[Record]) -> list[Record]:
    """Drop what a run told before it was interrupted and went on from an earlier step.

    A record whose step lies before one already read shows such a return: what was told beyond it no longer
    happened. Of two records of one kind at one step the later one stands.
    """
    kept: list[tuple[int, dict[Any, Record]]] = []  # step by step, the records of each by kind
    for record in records:
        step = record.get("step")
        if type(step) is not int or not 0 <= step < 2**63 or not isinstance(record.get("event"), str):
            continue
        while kept and kept[-1][0] > step:
            kept.pop()
        if not kept or kept[-1][0] < step:
            kept.append((step, {}))
        kept[-1][1].pop(_kind(record), None)
        kept[-1][1][_kind(record)] = record
    return [record for _, records_of_step in kept for record in records_of_step.values()]


def _kind(record: Record) -> tuple[Any, ...]:
    order, prompt = record.get("order"), record.get("prompt")
    return (
        record["event"],
        order if isinstance(order, int) else None,
        prompt if isinstance(prompt, str) else None,
    )


def _events(kind: type[EventType], records: Iterable[Record]) -> list[EventType]:
    return [_event(kind, record) for record in records if record["event"] == kind.name]


def _event(kind: type[EventType], record: Record) -> EventType:
    values: dict[str, Any] = {}
    for field in fields(kind):
        value = record.get(field.name)
        if field.type == "str":
            values[field.name] = value if isinstance(value, str) else ""
        else:
            values[field.name] = _number(value, math.nan if field.type == "float" else 0)
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
