"""Between this process and others of the system: which of them see each other, and who reads what is printed."""

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
"""Its descriptor, whatever ``sys.stderr`` has become."""
_ESCAPE = "etude-escape"
_MAY_FAIL = {"strict", "surrogateescape", "surrogatepass"}
"""Error handlers that raise for some character. What else was chosen by PYTHONIOENCODING is left as it is."""


def process_age() -> float:
    """Seconds since this process began, on Linux; 0 elsewhere."""
    with suppress(OSError, AttributeError, ValueError, IndexError):
        began = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19]) / os.sysconf(
            "SC_CLK_TCK"
        )
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - began)
    return 0.0


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


class Escapes:
    """Writes what an encoding does not have as JSON does (``\\u4e2d``, two of them beyond U+FFFF), and counts it.

    A line of JSON with such escapes holds the same text as before.
    """

    def __init__(self) -> None:
        self.count = 0  # of characters, without those that stand for undecodable bytes of a name

    def __call__(self, error: UnicodeError) -> tuple[str, int]:
        if not isinstance(error, UnicodeEncodeError):
            raise error
        characters = error.object[error.start : error.end]
        self.count += sum(not "\ud800" <= character <= "\udfff" for character in characters)
        units = characters.encode("utf-16-be", "surrogatepass").hex()
        return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4)), error.end

    def report(self) -> str:
        """Return one line on what was escaped; nothing where nothing was."""
        if not self.count:
            return ""
        encoding = getattr(sys.stdout, "encoding", None) or "this output's encoding"
        number = "1 character" if self.count == 1 else f"{self.count:,} characters"
        return (
            f"{number} that {encoding} does not have {'was' if self.count == 1 else 'were'} written as \\uXXXX: set "
            "PYTHONIOENCODING=utf-8 to have the text itself"
        )


def make_output_safe() -> Escapes:
    """From here on no character is an error on standard output, whatever its encoding; a closed stream drops all.

    Standard error is safe as Python makes it. To be called once, at the entry of a program.
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


def discard_output(stream: TextIO) -> None:
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
