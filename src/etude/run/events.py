"""The events of training, and their form as lines of the logs.

The training loop calls its listeners with them. :mod:`etude.run.writer` is the listener that writes the logs, and
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
    """The fields of every event: its place in the run."""

    name: ClassVar[str] = "event"
    step: int
    tokens_seen: int
    wall_time: float  # seconds of training, over all sessions

    def record(self) -> dict[str, Any]:
        """Return the event as the object of a line of metrics.jsonl or samples.jsonl."""
        values = {
            # JSON has no NaN or infinity: null takes their place, and is read back as NaN.
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(self).items()
        }
        return {"schema": EVENT_SCHEMA, "event": self.name, **values}


@dataclass(frozen=True)
class StepEvent(Event):
    """A step has updated the parameters."""

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
class ReferenceEvent(Event):
    """The model was scored on the reference text, before the evaluation of the same step."""

    name: ClassVar[str] = "reference"
    loss: float  # nats per token
    bits_per_byte: float
    num_tokens: int
    digest: str  # of the text: a fork may have another


@dataclass(frozen=True)
class PreferenceEvent(Event):
    """The held-out pairs of a chosen and a rejected answer were scored, before the evaluation of the same step."""

    name: ClassVar[str] = "preference"
    loss: float  # nats per pair
    accuracy: float  # share of pairs whose chosen answer has gained on the rejected one since step 0
    chosen: float  # mean log-probability of the chosen answers, nats per answer
    rejected: float  # the same of the rejected answers
    num_pairs: int


@dataclass(frozen=True)
class RewardEvent(Event):
    """Answers were sampled with the weights before a step, and checked."""

    name: ClassVar[str] = "reward"
    right: float  # share that is right: the mean reward
    ended: float  # share that ended by itself
    mixed: float  # share of the questions whose answers got different rewards: only these teach
    tokens: float  # mean length of an answer
    divergence: float  # from the base, nats per token; NaN without an adapter
    num_answers: int


@dataclass(frozen=True)
class SampleEvent(Event):
    """The model continued a prompt."""

    name: ClassVar[str] = "sample"
    prompt: str
    text: str


@dataclass(frozen=True)
class RungEvent(Event):
    """The validation loss fell below that of an n-gram model for the first time."""

    name: ClassVar[str] = "rung"
    order: int
    bits_per_byte: float  # of the n-gram model


@dataclass(frozen=True)
class CheckpointEvent(Event):
    """A checkpoint of this step is about to be saved. It holds hashes of the logs up to and including this line."""

    name: ClassVar[str] = "checkpoint"
    folder: str


@dataclass(frozen=True)
class LengthEvent(Event):
    """The planned number of steps of a run with a time budget changed, to fit the measured speed of the machine."""

    name: ClassVar[str] = "length"
    num_steps: int


@dataclass(frozen=True)
class SkippedEvent(Event):
    """The update of a step was skipped: its loss or the norm of its gradient was not finite."""

    name: ClassVar[str] = "left_out"  # the logs of the first edition have this name
    loss: str  # as text such as "nan" or "inf": JSON has no such numbers
    grad_norm: str
    batch: Sequence[RowSource]


@dataclass(frozen=True)
class SpikeEvent(Event):
    """The loss of a step was far above that of the steps before it."""

    name: ClassVar[str] = "spike"
    loss: float
    usual: float  # median loss of the steps before, at the share of samples of the base that this step has
    batch: Sequence[RowSource]


@dataclass(frozen=True)
class MicroBatchEvent(Event):
    """A step ran out of memory: later steps are computed in smaller micro-batches."""

    name: ClassVar[str] = "micro_batch"
    micro_batch_rows: int


@dataclass(frozen=True)
class ChecksumEvent(Event):
    """The checksum of all parameters after this step (:func:`etude.train.checksum.checksum`)."""

    name: ClassVar[str] = "checksum"
    parameters: str


@dataclass(frozen=True)
class SummaryEvent(Event):
    """Statistics of a step by parameter, and of the network after it (:mod:`etude.watch.summaries`)."""

    name: ClassVar[str] = "summary"
    # By parameter: weight_norm, grad_norm, update_norm, ...
    tensors: Mapping[str, Mapping[str, float | None]]
    attention_entropy: Sequence[Sequence[float | None]]  # nats, by layer and head
    dead_units: Sequence[float]  # share of the units of each layer's MLP
    seconds: Mapping[str, float]  # by part of the step: batch, forward (with the loss), backward, update


@dataclass(frozen=True)
class EndEvent(Event):
    """The training loop has ended; ``reason`` is "finished" or "stopped"."""

    name: ClassVar[str] = "end"
    reason: str


Listener = Callable[[Event], None]
EventType = TypeVar("EventType", bound=Event)


def event_from(kind: type[EventType], record: Mapping[str, Any]) -> EventType:
    """Return the event of the class ``kind`` in ``record``, the object of a log line.

    The log is untrusted: a missing or invalid number becomes NaN (float fields) or 0 (int fields), and a missing text
    becomes empty. Fields of other types are not read back, and are "".
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
    """Return ``value`` as a number of the type of ``otherwise``, or ``otherwise`` if it is no plausible number."""
    if isinstance(value, float) and isinstance(otherwise, float):
        return value
    plain = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**63
    return type(otherwise)(value) if plain else otherwise
