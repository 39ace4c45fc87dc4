"""Between this process and others of the system: which of them see each other, and who reads what is printed."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TextIO

STDERR = 2
"""Its descriptor, whatever ``sys.stderr`` has become."""


@cache
def system_id() -> str:
    """The same for two processes exactly where each can tell whether the other holds a lock; empty elsewhere.

    That is so on Linux within one start of a machine, and within one container on it.
    """
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.stat('/proc/self/ns/pid').st_ino}"
    return ""


def is_locked(file: Path) -> bool:
    """Whether a process of this system holds a lock (flock) on ``file``; False where the system does not tell."""
    try:
        found = file.stat()
        locks = Path("/proc/locks").read_text()
    except OSError:
        return False
    place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    return any("FLOCK" in line and place in line.split() for line in locks.splitlines())


def end_with_parent() -> None:
    """In a process of :mod:`multiprocessing`: from here on it ends when the process that started it does.

    A worker that waits for its next task would otherwise wait for ever once its parent was killed.
    """
    from multiprocessing import connection, parent_process

    parent = parent_process()
    if parent is None:
        return
    sentinel = parent.sentinel

    def wait() -> None:
        connection.wait([sentinel])
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def print_nowhere(stream: TextIO) -> None:
    """From here on what ``stream`` prints is read by nobody, and nobody waits for its end."""
    _lead_nowhere(stream.fileno())


@contextmanager
def silent_stderr() -> Iterator[None]:
    """Nothing of this process, or of those that it starts meanwhile, comes to standard error."""
    try:
        kept = os.dup(STDERR)
    except OSError:  # it is closed
        yield
        return
    sys.stderr.flush()
    try:
        _lead_nowhere(STDERR)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, STDERR)
        os.close(kept)


def _lead_nowhere(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
