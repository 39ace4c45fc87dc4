"""Show what a run with a time budget does before it trains, and how much of its time has passed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from etude.show.lines import print_line


@dataclass(frozen=True)
class Phases:
    """Prints a line for each phase to a file or a pipe; in a terminal, shows a line with a running clock."""

    console: Console
    began: float  # reading of ``clock`` at the start
    seconds: float  # time budget of the run
    clock: Callable[[], float] = time.monotonic

    def line(self, what: str) -> str:
        """Return ``what`` after the time that has passed and the time budget."""
        return f"{clock_time(self.clock() - self.began)} of {clock_time(self.seconds)}   {what}"

    def note(self, what: str) -> None:
        """Print that ``what`` begins."""
        print_line(self.console, self.line(what))

    @contextmanager
    def __call__(self, what: str) -> Iterator[None]:
        """Show that ``what`` is being done while the block runs."""
        if not self.console.is_terminal:
            self.note(what)
            yield
            return
        with self.console.status(_Moving(self, what)):  # type: ignore[arg-type]  # rich accepts any renderable
            yield


@dataclass(frozen=True)
class _Moving:
    """A renderable whose clock advances, because rich renders it anew for each refresh."""

    phases: Phases
    what: str

    def __rich__(self) -> Text:
        return Text(self.phases.line(self.what))


def clock_time(seconds: float) -> str:
    """Format seconds: ``75.2`` as ``1:15``."""
    whole = max(0, int(seconds))
    return f"{whole // 60}:{whole % 60:02d}"
