"""What a run folder's logs say happened, read back as lists of events."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from etude.evaluate.ladder import Ladder
from etude.run import RunFolder, read_json
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
            Ladder.from_json(read_json(run.ladder_file)) if run.ladder_file.exists() else None,
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
    kept: list[Record] = []
    for record in records:
        step = record.get("step")
        if type(step) is not int or not 0 <= step < 2**63 or not isinstance(record.get("event"), str):
            continue
        while kept and kept[-1]["step"] > record["step"]:
            kept.pop()
        kept = kept if _is_new(kept, record) else [old for old in kept if _key(old) != _key(record)]
        kept.append(record)
    return kept


def _key(record: Record) -> tuple[Any, ...]:
    return record["step"], record["event"], record.get("order"), record.get("prompt")


def _is_new(kept: list[Record], record: Record) -> bool:
    for old in reversed(kept):
        if old["step"] < record["step"]:
            break
        if _key(old) == _key(record):
            return False
    return True


def _events(kind: type[EventType], records: Iterable[Record]) -> list[EventType]:
    return [_event(kind, record) for record in records if record["event"] == kind.name]


def _event(kind: type[EventType], record: Record) -> EventType:
    values: dict[str, Any] = {}
    for field in fields(kind):
        value = record.get(field.name)
        if field.type == "str":
            values[field.name] = value if isinstance(value, str) else ""
        elif not isinstance(value, int | float) or isinstance(value, bool):
            values[field.name] = math.nan if field.type == "float" else 0
        else:
            values[field.name] = _float(value) if field.type == "float" else value
    return kind(**values)


def _float(number: float) -> float:
    try:
        return float(number)
    except OverflowError:  # JSON's whole numbers have no bound
        return math.nan
