"""This process in its system: its age, file locks, output streams, and its parent."""

from __future__ import annotations

import codecs
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from io import TextIOWrapper
from pathlib import Path
from typing import TextIO

STDERR = 2
"""File descriptor of standard error, whatever ``sys.stderr`` is."""
_ESCAPE = "etude-escape"
_MAY_FAIL = {"strict", "surrogateescape", "surrogatepass"}
"""Error handlers that raise for some characters. Any other handler was chosen by PYTHONIOENCODING, and stays."""


def process_age() -> float:
    """Return seconds since the start of this process, on Linux; 0 elsewhere."""
    with suppress(OSError, AttributeError, ValueError, IndexError):
        began = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19]) / os.sysconf(
            "SC_CLK_TCK"
        )
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - began)
    return 0.0


@cache
def system_id() -> str:
    """Return an id that two processes share exactly if each can see the other's file locks; "" without such an id.

    On Linux these are the processes since one boot of a machine, within one container.
    """
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.stat('/proc/self/ns/pid').st_ino}"
    return ""


def is_locked(file: Path) -> bool:
    """Return whether a process of this system holds a lock (flock) on ``file``; False if the OS does not report it."""
    try:
        status = file.stat()
        locks = Path("/proc/locks").read_text()
    except OSError:
        return False
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    return any("FLOCK" in line and place in line.split() for line in locks.splitlines())


class Escapes:
    """An error handler that writes unencodable characters as JSON escapes (``\\u4e2d``), and counts them.

    Characters beyond U+FFFF become two escapes, as in JSON. So a line of JSON with such escapes still parses to the
    same text.
    """

    def __init__(self) -> None:
        self.count = 0  # escaped characters, except lone surrogates, which stand for bytes of file names

    def __call__(self, error: UnicodeError) -> tuple[str, int]:
        """Return the escapes for the characters of ``error``, and the position after them."""
        if not isinstance(error, UnicodeEncodeError):
            raise error
        characters = error.object[error.start : error.end]
        self.count += sum(not "\ud800" <= character <= "\udfff" for character in characters)
        units = characters.encode("utf-16-be", "surrogatepass").hex()
        return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4)), error.end

    def report(self) -> str:
        """Return a line on the number of escaped characters; "" without any."""
        if not self.count:
            return ""
        encoding = getattr(sys.stdout, "encoding", None) or "this output's encoding"
        number = "1 character" if self.count == 1 else f"{self.count:,} characters"
        return (
            f"{number} that {encoding} does not have {'was' if self.count == 1 else 'were'} written as \\uXXXX: set "
            "PYTHONIOENCODING=utf-8 to print them unchanged"
        )


def make_output_safe() -> Escapes:
    """Make standard output accept every character, whatever its encoding, and replace closed streams by devnull.

    Python's standard error is safe already. Call this once, when a program starts.
    """
    escapes = Escapes()
    codecs.register_error(_ESCAPE, escapes)
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors in _MAY_FAIL:
        sys.stdout.reconfigure(errors=_ESCAPE)
    return escapes


def end_with_parent() -> None:
    """Make this :mod:`multiprocessing` worker exit when its parent process ends.

    Otherwise a worker that waits for its next task waits forever after its parent was killed.
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


def discard_output(stream: TextIO) -> None:
    """Discard everything that is written to ``stream`` from now on, and close the pipe or file behind it."""
    _redirect_to_devnull(stream.fileno())


@contextmanager
def silent_stderr() -> Iterator[None]:
    """Discard standard error of this process, and of its children, within the block."""
    try:
        original = os.dup(STDERR)
    except OSError:  # standard error is closed
        yield
        return
    sys.stderr.flush()
    try:
        _redirect_to_devnull(STDERR)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(original, STDERR)
        os.close(original)


def _redirect_to_devnull(descriptor: int) -> None:
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, descriptor)
    os.close(devnull)
