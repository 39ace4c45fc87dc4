"""What the loop says of itself. Whoever wants to draw, log or stop listens; the loop knows none of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from etude.run import EVENT_SCHEMA


@dataclass(frozen=True)
class RowSource:
    """Where a row of a batch came from."""

    row: int
    documents: tuple[str, ...]


@dataclass(frozen=True)
class Event:
    """Common to all events: where in the run it happened."""

    name: ClassVar[str] = "event"
    step: int
    tokens_seen: int
    wall_time: float  # seconds of training, over all sittings

    def record(self) -> dict[str, Any]:
        """The event as a line of metrics.jsonl or samples.jsonl."""
        told = {
            # JSON has no NaN; where a number is missing it is read as one.
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(self).items()
        }
        return {"schema": EVENT_SCHEMA, "event": self.name, **told}


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
    """The model as it stands was scored on validation text."""

    name: ClassVar[str] = "eval"
    val_loss: float  # nats per token
    bits_per_byte: float
    val_tokens: int


@dataclass(frozen=True)
class SampleEvent(Event):
    """The model as it stands continued a prompt."""

    name: ClassVar[str] = "sample"
    prompt: str
    text: str


@dataclass(frozen=True)
class RungEvent(Event):
    """The validation loss went below an n-gram model's for the first time."""

    name: ClassVar[str] = "rung"
    order: int
    bits_per_byte: float  # the n-gram model's


@dataclass(frozen=True)
class CheckpointEvent(Event):
    """A checkpoint was committed."""

    name: ClassVar[str] = "checkpoint"
    folder: str


@dataclass(frozen=True)
class LengthEvent(Event):
    """A run that was given a time got another number of steps, since the machine is faster or slower than foreseen."""

    name: ClassVar[str] = "length"
    num_steps: int


@dataclass(frozen=True)
class LeftOutEvent(Event):
    """The loss of a step or the norm of its gradient was not a finite number: its update was left out."""

    name: ClassVar[str] = "left_out"
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
    """A step did not fit the memory: from here on it goes through it in smaller pieces."""

    name: ClassVar[str] = "micro_batch"
    micro_batch_rows: int


@dataclass(frozen=True)
class ChecksumEvent(Event):
    """What :func:`etude.train.checksum.checksum` says of the model as it stands."""

    name: ClassVar[str] = "checksum"
    parameters: str


@dataclass(frozen=True)
class SummaryEvent(Event):
    """What a step did to each parameter, and how the network stands after it; see :mod:`etude.watch.summaries`."""

    name: ClassVar[str] = "summary"
    tensors: Mapping[
        str, Mapping[str, float | None]
    ]  # by parameter: weight_norm, grad_norm, update_norm, ...
    attention_entropy: Sequence[Sequence[float | None]]  # nats, by layer and head
    dead_units: Sequence[float]  # share of the nodes of each layer's MLP
    seconds: Mapping[str, float]  # that the step took: batch, forward (with the loss), backward, update


@dataclass(frozen=True)
class EndEvent(Event):
    """The loop ended; ``reason`` is finished or stopped."""

    name: ClassVar[str] = "end"
    reason: str


Listener = Callable[[Event], None]
