"""Long work outlives whoever reads what it prints: ``etude train | head`` trains to its end."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TextIO

from etude.system import print_nowhere


class OutlivingReader:
    """A text stream that turns silent when its reader is gone (a closed pipe), and says so once on stderr."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

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
        except BrokenPipeError:
            print_nowhere(self._stream)
            print("etude: nobody reads this output any more; the work goes on", file=sys.stderr)


def outlive_reader() -> None:
    """From here on, a closed pipe behind standard output ends nothing."""
    if sys.stdout is not None and not isinstance(sys.stdout, OutlivingReader):
        sys.stdout = OutlivingReader(sys.stdout)  # type: ignore[assignment]
