"""The most memory that a process and all it started hold together (Linux; elsewhere nothing is seen)."""

from __future__ import annotations

import contextlib
import glob
import os
import threading
from pathlib import Path
from types import TracebackType


class MemoryWatch:
    """Looks ten times a second while it is open; ``peak_bytes`` afterwards.

    A page that several processes share counts once in all (proportional set size), so that neither side pays for pages
    that a fork or a memory map shares.
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
    """The process and all it started, as far as they are still there (Linux; elsewhere the process alone)."""
    found = [pid]
    for file in glob.glob(f"/proc/{pid}/task/*/children"):
        with contextlib.suppress(OSError):
            for child in Path(file).read_text().split():
                found += family(int(child))
    return found


def _proportional_bytes(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
