"""Let long work continue without a reader of its output.

``etude train | head`` trains to its end, and a run whose terminal is closed is saved before it ends.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TextIO

from etude.system import discard_output

_READER_GONE = (errno.EPIPE, errno.EIO, errno.ENXIO)
"""Errors of a write after the pipe's reader has ended, or after the terminal was closed."""


class OutlivingReader:
    """A text stream that discards its output once a write fails: the reader ended, the terminal was closed, the disk
    is full. Then ``report`` is called with one line about it.
    """

    def __init__(self, stream: TextIO, report: Callable[[str], object] = lambda line: None) -> None:
        self._stream, self._report = stream, report

    def write(self, text: str) -> int:
        self._attempt(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._attempt(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _attempt(self, do: Callable[[], object]) -> None:
        try:
            do()
        except OSError as error:
            with suppress(OSError):
                discard_output(self._stream)
            if error.errno in _READER_GONE:
                self._report("etude: this output has no reader any more; the work continues")
            else:
                self._report(f"etude: this output cannot be written ({error.strerror}); the work continues")


def outlive_reader() -> None:
    """Keep the process running where standard output or standard error cannot be written from now on."""
    if sys.stderr is not None and not isinstance(sys.stderr, OutlivingReader):
        sys.stderr = OutlivingReader(sys.stderr)  # type: ignore[assignment]
    if sys.stdout is not None and not isinstance(sys.stdout, OutlivingReader):
        sys.stdout = OutlivingReader(sys.stdout, _report)  # type: ignore[assignment]


def _report(line: str) -> None:
    print(line, file=sys.stderr)
