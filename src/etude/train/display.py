"""Show a running training: a live panel in a terminal, plain lines elsewhere.

Both are listeners for the events of the loop, and do not affect the training.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.text import Text

from etude.run.events import (
    CheckpointEvent,
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
    SpikeEvent,
    StepEvent,
)
from etude.show.lines import format_duration, print_line, printable, shorten

SAMPLE_LINES = 7
"""Most lines of a sample in the panel."""
SHOWN_DOCUMENTS = 4
"""Most documents that a line about a spike or a skipped step names."""


@dataclass
class _Figures:
    """The latest values to show."""

    num_steps: int
    step: int = 0
    loss: float | None = None
    tokens_per_second: float = 0.0
    seconds_per_step: float = 0.0
    evaluation: EvalEvent | None = None
    reference: ReferenceEvent | None = None
    pairs: PreferenceEvent | None = None
    right: float | None = None  # of sampled answers
    sample: SampleEvent | None = None
    passed: dict[int, int] = field(default_factory=dict)  # order -> step

    def take(self, event: Event) -> None:
        """Update the values from an event."""
        if isinstance(event, StepEvent):
            if event.step > self.step and event.wall_time > 0:
                self.seconds_per_step = event.wall_time / event.step
            self.loss = event.loss if self.loss is None else 0.9 * self.loss + 0.1 * event.loss
            self.tokens_per_second = event.tokens_per_second
        elif isinstance(event, EvalEvent):
            self.evaluation = event
        elif isinstance(event, ReferenceEvent):
            self.reference = event
        elif isinstance(event, PreferenceEvent):
            self.pairs = event
        elif isinstance(event, RewardEvent):
            self.right = event.right if self.right is None else 0.9 * self.right + 0.1 * event.right
        elif isinstance(event, SampleEvent):
            self.sample = event
        elif isinstance(event, RungEvent):
            self.passed[event.order] = event.step
        elif isinstance(event, LengthEvent):
            self.num_steps = event.num_steps
        self.step = max(self.step, event.step)

    def time_left(self) -> str:
        """Return the remaining time, from the mean time of the steps so far."""
        if not self.seconds_per_step:
            return "measuring"
        return format_duration((self.num_steps - self.step) * self.seconds_per_step) + " left"

    def numbers(self) -> str:
        """Return losses and speed on one line."""
        parts = []
        if self.loss is not None:
            parts.append(f"loss {self.loss:.3f}")
        if self.evaluation is not None:
            parts.append(
                f"validation {self.evaluation.val_loss:.3f} ({self.evaluation.bits_per_byte:.3f} bits per byte)"
            )
        if self.pairs is not None:
            pairs = self.pairs
            parts.append(f"pairs {pairs.loss:.3f} ({pairs.accuracy:.0%} gained)")
        if self.right is not None:
            parts.append(f"sampled answers {self.right:.0%} right")
        if self.reference is not None:
            parts.append(f"reference {self.reference.bits_per_byte:.3f}")
        if self.tokens_per_second:
            parts.append(f"{self.tokens_per_second:,.0f} tokens/s")
        return "   ".join(parts)


def trouble(event: Event) -> str | None:
    """Return one line on a skipped step, a spike or a lack of memory; None for other events."""
    if isinstance(event, SkippedEvent):
        what = f"loss {event.loss}, gradient {event.grad_norm}: the update was skipped"
    elif isinstance(event, SpikeEvent):
        what = f"the loss jumped to {event.loss:.3f} from {event.usual:.3f}"
    elif isinstance(event, MicroBatchEvent):
        return (
            f"step {event.step}   out of memory: micro-batches have {event.micro_batch_rows} rows from now on"
        )
    else:
        return None
    documents = list(dict.fromkeys(name for source in event.batch for name in source.documents))
    more = f" and {len(documents) - SHOWN_DOCUMENTS} more" if len(documents) > SHOWN_DOCUMENTS else ""
    return f"step {event.step}   {what} (documents {', '.join(documents[:SHOWN_DOCUMENTS])}{more})"


class LiveDisplay:
    """A panel in the terminal that redraws itself in place."""

    def __init__(
        self, console: Console, title: str, num_steps: int, rungs: dict[int, float], passed: dict[int, int]
    ) -> None:
        self._figures = _Figures(num_steps, passed=dict(passed))
        self._title = title
        self._rungs = rungs
        self._bar = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(None),
            TextColumn("{task.fields[left]}"),
            expand=True,
        )
        self._task: TaskID = self._bar.add_task("", total=num_steps, left="compiling")
        self._live = Live(console=console, get_renderable=self._draw, refresh_per_second=4)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def __call__(self, event: Event) -> None:
        """Show an event."""
        self._figures.take(event)
        line = trouble(event)
        if line is not None:  # printed above the panel, it stays in the terminal
            self._live.console.print(line, markup=False, highlight=False)
        self._bar.update(
            self._task,
            completed=self._figures.step,
            total=self._figures.num_steps,
            left=self._figures.time_left(),
        )

    def committed(self, event: CheckpointEvent) -> None:
        """Ignore a committed checkpoint: the panel does not show them."""

    def _draw(self) -> RenderableType:
        figures = self._figures
        parts: list[RenderableType] = [self._bar, Text(figures.numbers() or "starting")]
        if self._rungs:
            parts.append(self._ladder())
        if figures.sample is not None:
            parts.append(self._sample(figures.sample))
        return Panel(Group(*parts), title=self._title, title_align="left", border_style="dim")

    def _ladder(self) -> Text:
        """Return a line with the n-gram models that the network has passed, and the next one."""
        line = Text("n-gram ladder  ")
        following = next((k for k in self._rungs if k not in self._figures.passed), None)
        for order in self._rungs:
            done = order in self._figures.passed
            line.append(f"{order}{'✓' if done else '·'} ", style="green" if done else "dim")
        if following is not None:
            line.append(f" next: {following}-gram at {self._rungs[following]:.3f} bits per byte")
        return line

    def _sample(self, event: SampleEvent) -> Panel:
        text = Text(printable(event.prompt), style="bold") + Text(printable(event.text))
        lines = text.plain.splitlines()
        if len(lines) > SAMPLE_LINES:
            text.truncate(len("\n".join(lines[:SAMPLE_LINES])))
        return Panel(text, title=f"sample at step {event.step}", title_align="left", border_style="blue")


class PlainDisplay:
    """A line for each evaluation, sample and other event; for files, pipes and job queues."""

    def __init__(self, console: Console, num_steps: int) -> None:
        self._figures = _Figures(num_steps)
        self._console = console

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def __call__(self, event: Event) -> None:
        """Print a line for an event."""
        self._figures.take(event)
        if isinstance(event, EvalEvent):
            self._print(
                f"step {event.step}/{self._figures.num_steps}   {self._figures.numbers()}   "
                f"{self._figures.time_left()}"
            )
        elif isinstance(event, RungEvent):
            self._print(
                f"step {event.step}   passed the {event.order}-gram ({event.bits_per_byte:.3f} bits per byte)"
            )
        elif isinstance(event, SampleEvent):
            self._print(f"step {event.step}   sample: {shorten(event.prompt + event.text)}")
        elif isinstance(event, LengthEvent):
            length = f"now has {event.num_steps} steps, to end on time"
            if event.num_steps == event.step:
                length = "ends here: it has gained no more than it cost for a while"
            self._print(f"step {event.step}   the run {length}")
        elif isinstance(event, EndEvent):
            self._print(f"step {event.step}   {event.reason}")
        elif (line := trouble(event)) is not None:
            self._print(line)

    def committed(self, event: CheckpointEvent) -> None:
        """Print a line for a checkpoint that is on disk now. The training is some steps ahead by then."""
        self._print(f"step {event.step}   saved {event.folder}")

    def _print(self, line: str) -> None:
        print_line(self._console, line)


def training_display(
    console: Console, title: str, num_steps: int, rungs: dict[int, float], passed: dict[int, int]
) -> AbstractContextManager[LiveDisplay | PlainDisplay]:
    """Return the display for a terminal or another output.

    Args:
        rungs: bits per byte of each n-gram model, by order.
        passed: the step at which an earlier session passed an n-gram model, by order.
    """
    if console.is_terminal:
        return LiveDisplay(console, title, num_steps, rungs, passed)
    return PlainDisplay(console, num_steps)
