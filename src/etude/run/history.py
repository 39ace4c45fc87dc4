"""The events of a run, read back from its logs."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from operator import eq
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, overload

from etude.errors import InputError
from etude.files import read_json
from etude.run.events import (
    ChecksumEvent,
    EndEvent,
    EvalEvent,
    Event,
    LengthEvent,
    MicroBatchEvent,
    PreferenceEvent,
    ReferenceEvent,
    RewardEvent,
    RungEvent,
    SampleEvent,
    SkippedEvent,
    StepEvent,
    event_from,
    number_or,
)
from etude.run.folder import RunFolder
from etude.run.ladder import Ladder

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Record = dict[str, Any]


class Steps(Sequence[StepEvent]):
    """The step events in ascending order. Stored as columns: a million take 56 MB instead of 500 MB as objects."""

    def __init__(self, events: Iterable[StepEvent] = ()) -> None:
        self._columns: dict[str, array[Any]] = {
            field.name: array("q" if field.type == "int" else "d") for field in fields(StepEvent)
        }
        for event in events:
            self.append(vars(event))

    def append(self, record: Record) -> None:
        """Append the event of a log line. A missing number becomes NaN in float columns, and 0 in integer columns."""
        for name, column in self._columns.items():
            value = record.get(name)
            # Most values are floats for float columns: skip the general conversion for them.
            if type(value) is not float or column.typecode == "q":
                value = number_or(value, 0 if column.typecode == "q" else math.nan)
            column.append(value)

    def drop_from(self, step: int) -> int:
        """Remove the events from ``step`` on, and return their number."""
        kept, count = bisect_left(self._columns["step"], step), len(self)
        for column in self._columns.values():
            del column[kept:]
        return count - kept

    def at(self, step: int) -> StepEvent | None:
        """Return the event of ``step``, or None."""
        index = bisect_left(self._columns["step"], step)
        return self[index] if index < len(self) and self._columns["step"][index] == step else None

    def starts_with(self, others: Steps) -> bool:
        """Return whether the first events are ``others``, with the same losses and norms bit for bit.

        Times may differ: a run that was killed repeats its last steps.
        """
        for name in ("step", "loss", "grad_norm"):
            mine, theirs = memoryview(self._columns[name]), memoryview(others._columns[name])
            if mine[: len(others)].tobytes() != theirs.tobytes():  # as bytes: NaN is not equal to itself
                return False
        return True

    def column(self, name: str) -> npt.NDArray[Any]:
        """Return a field of all events, such as ``loss``, as an array (events,) of float64 or int64."""
        import numpy as np

        return np.array(self._columns[name])

    def where(self, mask: npt.NDArray[np.bool_]) -> Steps:
        """Return the events where ``mask``, (events,), is true."""
        import numpy as np

        return self._selected(lambda column: array(column.typecode, np.array(column)[mask].tobytes()))

    def _selected(self, select: Callable[[array[Any]], array[Any]]) -> Steps:
        """Return the events that ``select`` picks from each column."""
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
    """The events of a run, each list in the order of steps. No step occurs twice in a list.

    Attributes:
        skipped: steps whose update was skipped, because the loss or the gradient was not finite.
        last_step: the last logged step, capped by the number of logged steps so that a corrupt step cannot inflate it.
    """

    folder: Path
    name: str
    steps: Steps
    evals: list[EvalEvent]
    rungs: list[RungEvent]
    samples: list[SampleEvent]
    lengths: list[LengthEvent]
    end: EndEvent | None
    ladder: Ladder | None
    skipped: list[int] = field(default_factory=list)
    checksums: list[ChecksumEvent] = field(default_factory=list)
    micro_batches: list[MicroBatchEvent] = field(default_factory=list)
    last_step: int = 0
    references: list[ReferenceEvent] = field(default_factory=list)
    preferences: list[PreferenceEvent] = field(default_factory=list)
    rewards: list[RewardEvent] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not isinstance(self.steps, Steps):  # callers may give a list of events
            object.__setattr__(self, "steps", Steps(self.steps))

    @classmethod
    def from_metrics(cls, run: RunFolder) -> RunHistory:
        """Read metrics.jsonl alone: the result has no samples and no ladder.

        Raises:
            InputError: this account may not read it.
        """
        kinds = (
            *(EvalEvent, ReferenceEvent, PreferenceEvent, RewardEvent, RungEvent, LengthEvent),
            *(EndEvent, SkippedEvent, ChecksumEvent, MicroBatchEvent),
        )
        log = collect_events(run.metrics.events(), kinds)
        steps, events = log.steps, log.events
        ends, skipped = events[EndEvent.name], [event.step for event in events[SkippedEvent.name]]
        first = min([*skipped, *(step.step for step in steps[:1])], default=0)
        return cls(
            run.path,
            run.path.resolve().name,
            steps,
            events[EvalEvent.name],
            events[RungEvent.name],
            [],
            events[LengthEvent.name],
            ends[-1] if ends else None,
            None,
            skipped,
            events[ChecksumEvent.name],
            events[MicroBatchEvent.name],
            min(log.last_step, max(0, first - 1 + log.num_steps)),
            of_newest_text(events[ReferenceEvent.name]),
            events[PreferenceEvent.name],
            events[RewardEvent.name],
        )

    @property
    def num_steps(self) -> int | None:
        """The planned length of the run as last revised; None if it never changed from that of the settings."""
        # A run that ended early, and continues with other settings, is longer than its last revision.
        lengths = (event.num_steps for event in reversed(self.lengths))
        return next((length for length in lengths if length >= self.last_step), None)

    @property
    def bits_per_byte_per_nat(self) -> float | None:
        """Factor from the training loss, in nats per token, to bits per byte under this run's tokenizer.

        None without evaluations, and where the training loss is that of pairs of answers or of sampled ones.
        """
        if self.preferences or self.rewards:
            return None
        ratios = [e.bits_per_byte / e.val_loss for e in self.evals if e.val_loss > 0]
        ratios = [ratio for ratio in ratios if math.isfinite(ratio)]
        return median(ratios) if ratios else None

    @property
    def passed_at(self) -> dict[int, int]:
        """The step at which the run passed each n-gram model, by order: as logged, else from the evaluations."""
        passed = {event.order: event.step for event in reversed(self.rungs)}
        if passed or self.ladder is None:
            return dict(sorted(passed.items()))
        for evaluation in self.evals:
            reached = self.ladder.passed(evaluation.bits_per_byte)
            for rung in self.ladder.rungs:
                if rung.order <= reached:
                    passed.setdefault(rung.order, evaluation.step)
        return passed


def of_newest_text(references: Sequence[ReferenceEvent]) -> list[ReferenceEvent]:
    """Return the results on the reference text of the newest one: a fork may have another than its parent."""
    return [event for event in references if event.digest == references[-1].digest]


def read_samples(run: RunFolder) -> list[SampleEvent]:
    """Return the samples of a run, in the order of steps.

    Raises:
        InputError: this account may not read samples.jsonl.
    """
    return collect_events(run.samples.events(), (SampleEvent,)).events[SampleEvent.name]


def read_ladder(run: RunFolder) -> Ladder | None:
    """Return the n-gram ladder of a run; None if it has none.

    Raises:
        InputError: ladder.json is damaged or unreadable.
    """
    if not run.ladder_file.exists():
        return None
    content = read_json(run.ladder_file)
    try:
        ladder = Ladder.from_json(content)
    except InputError as error:
        raise InputError(f"{run.path}: {error}") from None
    if not ladder.rungs:
        raise InputError(f"{run.ladder_file} is damaged (it has no rungs): restore it, or train again")
    return ladder


@dataclass(frozen=True)
class CollectedEvents:
    """The events of a log without those that a resume has superseded.

    Attributes:
        events: the other events, by the name of their kind.
        num_steps: the number of step and skipped events in the log, superseded ones included.
        last_step: the highest step among these.
    """

    steps: Steps
    events: dict[str, list[Any]]
    num_steps: int
    last_step: int


def collect_events(records: Iterable[Record], kinds: Sequence[type[Event]]) -> CollectedEvents:
    """Return the step events and those of each of ``kinds``, without superseded ones.

    A record of a lower step than the record before it shows that the run was interrupted and resumed from an earlier
    checkpoint: the events beyond its step are superseded. Of two events of one kind at one step, the later one is kept.
    """
    types, newest, dropped, last_step = {kind.name: kind for kind in kinds}, -1, 0, 0
    steps, kept = Steps(), {name: dict[tuple[int, tuple[Any, ...]], Event]() for name in types}
    for record in records:
        step, name = record.get("step"), record.get("event")
        if type(step) is not int or not 0 <= step < 2**63 or not isinstance(name, str):
            continue
        if name == MicroBatchEvent.name:
            if name in types:
                kept[name][step, ()] = event_from(types[name], record)
            continue  # logged ahead of buffered earlier steps (train.log_every), so its place shows no interruption
        if step < newest:
            dropped += steps.drop_from(step + 1)
            for events in (kept[name] for name in types if name != MicroBatchEvent.name):
                while events and next(reversed(events))[0] > step:
                    dropped += events.popitem()[1].name == SkippedEvent.name
        if name in (StepEvent.name, SkippedEvent.name):
            last_step = max(last_step, step)
        if name == StepEvent.name:
            if step <= newest:
                steps.drop_from(step)
            steps.append(record)
        elif name in types:
            key, events = (step, _identity(record)), kept[name]
            # Remove the earlier event: assigning to its key alone would keep its place in the order.
            events.pop(key, None)
            events[key] = event_from(types[name], record)
        newest = step
    num_steps = len(steps) + len(kept.get(SkippedEvent.name, ())) + dropped
    return CollectedEvents(
        steps, {name: list(events.values()) for name, events in kept.items()}, num_steps, last_step
    )


def _identity(record: Record) -> tuple[Any, ...]:
    """Return a key that distinguishes a record from others of the same step."""
    order, prompt = record.get("order"), record.get("prompt")
    return (
        record["event"],
        order if isinstance(order, int) else None,
        prompt if isinstance(prompt, str) else None,
    )
