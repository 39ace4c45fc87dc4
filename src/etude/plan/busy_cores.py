"""Measure how many cores other programs keep busy, and advise how many threads to use.

The threads of a step wait for each other several hundred times. If two programs have a thread on every core, the thread
that the others wait for often has no core, and both programs become many times slower. Fewer threads than cores help.

Linux reports the work of each core. On other systems this module measures and advises nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from etude.config import Settings
from etude.device import available_cores, choose_device
from etude.run.events import Event, StepEvent

WINDOW = 3.0
"""Seconds over which core usage is averaged while a run trains."""
REPORT_FROM = 0.6
"""Cores that other programs must keep busy, in two windows in a row, for a warning."""


@dataclass(frozen=True)
class Usage:
    """Seconds up to a moment."""

    wall: float  # of the clock
    busy: float  # in which the cores that this process may use were busy, added up
    own: float  # of processor time of this process and its children


def read_usage() -> Usage | None:
    """Read the usage of the cores since boot; None where the system does not report it."""
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
    """Return the busy ticks of ``cores`` from the lines of /proc/stat, with those stolen by the hypervisor."""
    total = 0
    for line in lines:
        name, *numbers = line.split()
        if name.startswith("cpu") and name[3:].isdecimal() and int(name[3:]) in cores:
            user, nice, system, _idle, _waiting, *rest = map(int, numbers[:8])
            total += user + nice + system + sum(rest)
    return total


def others(before: Usage | None, after: Usage | None) -> float:
    """Return the mean number of cores that other programs kept busy between two readings."""
    if before is None or after is None or after.wall <= before.wall:
        return 0.0
    return max(0.0, (after.busy - before.busy - after.own + before.own) / (after.wall - before.wall))


def busy_cores(seconds: float = 0.2) -> float:
    """Measure for ``seconds`` how many cores other programs keep busy."""
    before = read_usage()
    if before is None:
        return 0.0
    time.sleep(seconds)
    return others(before, read_usage())


def threads_beside(busy: float, cores: int) -> int:
    """Return how many threads to use where other programs keep ``busy`` of ``cores`` busy."""
    return max(1, cores - round(busy))


@dataclass
class BusyWatch:
    """Warn once that the machine is busy: checked at the start, and as a listener while the run trains."""

    report: Callable[[str], None]  # receives the warning
    read: Callable[[], Usage | None] = read_usage
    cores: int = field(default_factory=available_cores)
    threads: int = 1  # of the run
    resume: str = ""  # the command that continues the run; empty while there is none
    _before: Usage | None = None
    _windows: int = 0  # busy ones in a row
    _reported: bool = False

    def __post_init__(self) -> None:
        self._before = self.read()

    def begin(self, threads: int, resume: str) -> None:
        """Start to measure while ``threads`` train. The command ``resume`` continues the run."""
        self.threads, self.resume = threads, resume
        self._before, self._windows = self.read(), 0

    def look(self, threads: int, least: float = 1.0) -> None:
        """Warn if other programs were busy since the last reading, which must be ``least`` seconds ago or more."""
        after = self.read()
        if self._before is not None and after is not None and after.wall - self._before.wall >= least:
            self.threads = threads
            self._warn(others(self._before, after))

    def __call__(self, event: Event) -> None:
        """Measure at each step; warn after two busy windows in a row."""
        if self._reported or self._before is None or not isinstance(event, StepEvent):
            return
        after = self.read()
        if after is None or after.wall - self._before.wall < WINDOW:
            return
        busy, self._before = others(self._before, after), after
        self._windows = self._windows + 1 if self._is_too_much(busy) else 0
        if self._windows > 1:
            self._warn(busy)

    def _is_too_much(self, busy: float) -> bool:
        """Return whether so many busy cores slow a run with so many threads."""
        return busy >= REPORT_FROM and self.threads > threads_beside(busy, self.cores) - (
            busy >= self.cores - 0.5
        )

    def _warn(self, busy: float) -> None:
        if self._reported or not self._is_too_much(busy):
            return
        self._reported = True
        line = f"other programs keep about {busy:.1f} of the {self.cores} cores busy: this run takes longer"
        fewer = threads_beside(busy, self.cores)
        if self.threads > fewer:
            option = f"--set device.threads={fewer}"
            how = f"continue with  {self.resume} {option}" if self.resume else f"begin again with {option}"
            line += (
                f", and many times as long with {self.threads} threads, which wait for each other. "
                f"Wait, or press Ctrl-C and {how}"
            )
        self.report(line)


def threads_for_time(settings: Settings) -> dict[str, tuple[int, str]]:
    """Choose fewer threads than cores, with the reason, where other programs keep cores busy.

    Empty if the user set a number. Only a run with a time budget does this, because its result depends on the clock
    anyway. The bits of any other run must follow from its settings and the machine, whatever else runs there.
    """
    if settings.device.threads != "auto" or choose_device(settings.device).kind != "cpu":
        return {}
    cores, busy = available_cores(), busy_cores()
    threads = threads_beside(busy, cores)
    if threads == cores:
        return {}
    reason = f"other programs keep about {busy:.1f} of the {cores} cores busy, so it trains on {threads}"
    return {"device.threads": (threads, reason)}
