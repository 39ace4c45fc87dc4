"""Measure how many cores other programs keep busy, and advise how many threads to use.

Threads of one step wait for each other several hundred times in it. Where two programs have a thread for each core, a
thread that is waited for often has no core, and both programs take many times as long. Fewer threads than cores help.

Linux says what each core has done; elsewhere nothing is known, and nothing is said.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from etude.device import available_cores
from etude.run.events import Event, StepEvent

WINDOW = 3.0
"""Seconds that the use of the cores is averaged over while a run trains."""
WORTH_SAYING = 0.6
"""Cores that others must use in two windows in a row."""


@dataclass(frozen=True)
class Usage:
    """Seconds up to a moment: by the clock, of the cores that this process may use, and of this process on them."""

    wall: float
    busy: float
    own: float


def read_usage() -> Usage | None:
    """The use of the cores since the machine began; None where the system does not say."""
    try:
        lines = Path("/proc/stat").read_text().splitlines()
        cores = os.sched_getaffinity(0)
        ticks = os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError):
        return None
    times = os.times()
    return Usage(
        time.monotonic(), busy_ticks(lines, cores) / ticks, time.process_time() + times[2] + times[3]
    )


def busy_ticks(lines: list[str], cores: set[int]) -> int:
    """Ticks in which ``cores`` did something, by the lines of /proc/stat; what the hypervisor took counts too."""
    total = 0
    for line in lines:
        name, *numbers = line.split()
        if name.startswith("cpu") and name[3:].isdecimal() and int(name[3:]) in cores:
            user, nice, system, _idle, _waiting, *rest = map(int, numbers[:8])
            total += user + nice + system + sum(rest)
    return total


def others(before: Usage | None, after: Usage | None) -> float:
    """Cores that other programs kept busy between two readings."""
    if before is None or after is None or after.wall <= before.wall:
        return 0.0
    return max(0.0, (after.busy - before.busy - after.own + before.own) / (after.wall - before.wall))


def busy_cores(seconds: float = 0.2) -> float:
    """Cores that other programs keep busy now; takes ``seconds``."""
    before = read_usage()
    if before is None:
        return 0.0
    time.sleep(seconds)
    return others(before, read_usage())


def threads_beside(busy: float, cores: int) -> int:
    """How many threads a step should have where others keep ``busy`` of ``cores`` busy."""
    return max(1, cores - round(busy))


@dataclass
class BusyWatch:
    """Says once that the machine is busy: a look at the start, and a listener while the run trains."""

    say: Callable[[str], None]
    read: Callable[[], Usage | None] = read_usage
    cores: int = field(default_factory=available_cores)
    threads: int = 1  # of the run
    resume: str = ""  # the command that continues the run; empty while there is none
    _before: Usage | None = None
    _windows: int = 0  # in a row, that were busy
    _said: bool = False

    def __post_init__(self) -> None:
        self._before = self.read()

    def begin(self, threads: int, resume: str) -> None:
        """From here on look at what happens while ``threads`` train; the command ``resume`` continues the run."""
        self.threads, self.resume = threads, resume
        self._before, self._windows = self.read(), 0

    def look(self, threads: int, least: float = 1.0) -> None:
        """Say what others did since the beginning, if that was ``least`` seconds ago or more."""
        after = self.read()
        if self._before is not None and after is not None and after.wall - self._before.wall >= least:
            self.threads = threads
            self._say(others(self._before, after))

    def __call__(self, event: Event) -> None:
        if self._said or self._before is None or not isinstance(event, StepEvent):
            return
        after = self.read()
        if after is None or after.wall - self._before.wall < WINDOW:
            return
        busy, self._before = others(self._before, after), after
        self._windows = self._windows + 1 if self._is_too_much(busy) else 0
        if self._windows > 1:
            self._say(busy)

    def _is_too_much(self, busy: float) -> bool:
        return busy >= WORTH_SAYING and self.threads > threads_beside(busy, self.cores) - (
            busy >= self.cores - 0.5
        )

    def _say(self, busy: float) -> None:
        if self._said or not self._is_too_much(busy):
            return
        self._said = True
        line = f"other programs keep about {busy:.1f} of the {self.cores} cores busy: this run takes longer"
        fewer = threads_beside(busy, self.cores)
        if self.threads > fewer:
            option = f"--set device.threads={fewer}"
            how = f"continue with  {self.resume} {option}" if self.resume else f"begin again with {option}"
            line += (
                f", and many times as long with {self.threads} threads, which wait for each other. "
                f"Wait, or press Ctrl-C and {how}"
            )
        self.say(line)
