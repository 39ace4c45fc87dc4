"""Measure the peak memory of a process and all its descendants together (Linux; elsewhere it reads 0)."""

from __future__ import annotations

import contextlib
import glob
import os
import threading
from pathlib import Path
from types import TracebackType


class MemoryWatch:
    """Samples the memory ten times per second while it is open. ``peak_bytes`` holds the result.

    Shared pages count once (proportional set size), so that no contestant is charged several times for pages that forks
    or memory maps share.
    """

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        self._thread.join()

    def _look(self) -> None:
        while True:
            self.peak_bytes = max(self.peak_bytes, sum(map(_proportional_bytes, family(os.getpid()))))
            if self._closed.wait(0.1):
                return


def family(pid: int) -> list[int]:
    """Return the process and its running descendants (Linux; elsewhere only the process itself)."""
    pids = [pid]
    for file in glob.glob(f"/proc/{pid}/task/*/children"):
        with contextlib.suppress(OSError):
            for child in Path(file).read_text().split():
                pids += family(int(child))
    return pids


def _proportional_bytes(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
