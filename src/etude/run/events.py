"""The events that a training reports, and their form as lines of the logs.

The loop emits them and knows none of its listeners; :mod:`etude.run.writer` writes them down and
:mod:`etude.run.history` reads them back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, TypeVar

from etude.run.log import EVENT_SCHEMA


@dataclass(frozen=True)
class RowSource:
    """The documents that a row of a batch came from."""

    row: int
    documents: tuple[str, ...]


@dataclass(frozen=True)
class Event:
    """What all events have: where in the run it happened."""

    name: ClassVar[str] = "event"
    step: int
    tokens_seen: int
    wall_time: float  # seconds of training, over all sessions

    def record(self) -> dict[str, Any]:
        """Return the event as the object of a line of metrics.jsonl or samples.jsonl."""
        values = {
            # JSON has no NaN; a number that is null is read back as one.
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(self).items()
        }
        return {"schema": EVENT_SCHEMA, "event": self.name, **values}


@dataclass(frozen=True)
class StepEvent(Event):
    """One update was made."""

    name: ClassVar[str] = "step"
    loss: float  # nats per token, before the update
    grad_norm: float  # before clipping
    lr: float
    tokens_per_second: float


@dataclass(frozen=True)
class EvalEvent(Event):
    """The model was scored on validation text."""

    name: ClassVar[str] = "eval"
    val_loss: float  # nats per token
    bits_per_byte: float
    val_tokens: int


@dataclass(frozen=True)
class SampleEvent(Event):
    """The model continued a prompt."""

    name: ClassVar[str] = "sample"
    prompt: str
    text: str


@dataclass(frozen=True)
class RungEvent(Event):
    """The validation loss fell below an n-gram model's for the first time."""

    name: ClassVar[str] = "rung"
    order: int
    bits_per_byte: float  # the n-gram model's


@dataclass(frozen=True)
class CheckpointEvent(Event):
    """A checkpoint of this step follows; it vouches for the record up to and with this line."""

    name: ClassVar[str] = "checkpoint"
    folder: str


@dataclass(frozen=True)
class LengthEvent(Event):
    """A run for a given time got another number of steps: the machine is faster or slower than predicted."""

    name: ClassVar[str] = "length"
    num_steps: int


@dataclass(frozen=True)
class SkippedEvent(Event):
    """The loss of a step or the norm of its gradient was not finite: its update was skipped."""

    name: ClassVar[str] = "left_out"  # so it is called in the logs since the first edition
    loss: str  # in words: JSON has no such numbers
    grad_norm: str
    batch: Sequence[RowSource]


@dataclass(frozen=True)
class SpikeEvent(Event):
    """The loss of a step was far above those before it."""

    name: ClassVar[str] = "spike"
    loss: float
    usual: float  # the median of the steps before
    batch: Sequence[RowSource]


@dataclass(frozen=True)
class MicroBatchEvent(Event):
    """A step did not fit the memory: from here on it is computed in smaller micro-batches."""

    name: ClassVar[str] = "micro_batch"
    micro_batch_rows: int


@dataclass(frozen=True)
class ChecksumEvent(Event):
    """The checksum of all parameters after this step (:func:`etude.train.checksum.checksum`)."""

    name: ClassVar[str] = "checksum"
    parameters: str


@dataclass(frozen=True)
class SummaryEvent(Event):
    """What a step did to each parameter, and the state of the network after it (:mod:`etude.watch.summaries`)."""

    name: ClassVar[str] = "summary"
    tensors: Mapping[
        str, Mapping[str, float | None]
    ]  # by parameter: weight_norm, grad_norm, update_norm, ...
    attention_entropy: Sequence[Sequence[float | None]]  # nats, by layer and head
    dead_units: Sequence[float]  # share of the units of each layer's MLP
    seconds: Mapping[str, float]  # that the step took: batch, forward (with the loss), backward, update


@dataclass(frozen=True)
class EndEvent(Event):
    """The loop ended; ``reason`` is finished or stopped."""

    name: ClassVar[str] = "end"
    reason: str


Listener = Callable[[Event], None]
EventType = TypeVar("EventType", bound=Event)


def event_from(kind: type[EventType], record: Mapping[str, Any]) -> EventType:
    """Return the event of a ``record`` that :meth:`Event.record` of a ``kind`` of plain fields made.

    Records may come from anyone: a missing number is NaN, or 0 where it must be whole, and a missing text is empty.
    Fields that are not numbers or texts are empty.
    """
    values: dict[str, Any] = {}
    for declared in fields(kind):
        value = record.get(declared.name)
        if declared.type == "float":
            values[declared.name] = number_or(value, math.nan)
        elif declared.type == "int":
            values[declared.name] = number_or(value, 0)
        else:
            values[declared.name] = value if declared.type == "str" and isinstance(value, str) else ""
    return kind(**values)


def number_or(value: Any, otherwise: float) -> float:
    """Return ``value`` as a number of the type of ``otherwise``; that itself where no run can reach the value."""
    if isinstance(value, float) and isinstance(otherwise, float):
        return value
    plain = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**63
    return type(otherwise)(value) if plain else otherwise
