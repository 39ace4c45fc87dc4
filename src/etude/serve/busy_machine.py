"""Report while a question is answered that other programs hold the processors: the worker yields to them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from etude.device import available_cores
from etude.plan.busy_cores import Usage, others, read_usage
from etude.serve.look_types import Busy

WINDOW = 3.0
"""Seconds between two readings."""
BUSY_SHARE = 0.6
"""Share of the cores that other programs must keep busy."""


@dataclass
class BusyMachine:
    """Measures how busy other programs keep the machine while questions wait for their answers.

    Attributes:
        waiting: returns the numbers of the questions without an answer.
        report: called with a number and a line for its client.
    """

    waiting: Callable[[], list[object]]
    report: Callable[[object, Busy], None]
    read: Callable[[], Usage | None] = read_usage
    cores: int = field(default_factory=available_cores)

    def watch(self, window: float = WINDOW) -> None:
        """Measure in windows, forever; for a thread of its own."""
        while True:
            self.look(lambda: time.sleep(window))

    def look(self, wait: Callable[[], None]) -> None:
        """Measure over one window, and report it to the questions that waited through all of it."""
        before, early = self.read(), self.waiting()
        wait()
        waited = [number for number in self.waiting() if number in early]
        busy = others(before, self.read())
        if busy >= BUSY_SHARE * self.cores:
            for number in waited:
                self.report(number, {"busy": {"others": round(busy, 1), "cores": self.cores}})
