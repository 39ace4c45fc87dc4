"""The studio's server beside a training: a process of its own, which ends with the one that began it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread


class StudioBeside:
    """The server's process, and its address once it is known."""

    def __init__(self, runs: Path) -> None:
        self._address = ""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "etude.serve", str(runs)],
            stdin=subprocess.PIPE,  # it ends when this does, however that comes about
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the training
        )
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def address(self, seconds: float = 5.0) -> str:
        """Where the page is; an empty text when the server has not begun by then."""
        self._reader.join(seconds)
        return self._address

    def end(self) -> None:
        """End the server."""
        with suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        try:
            self._process.wait(3)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with suppress(ValueError, OSError):
            self._address = json.loads(self._process.stdout.readline()).get("address", "")


@contextmanager
def studio_beside(runs: Path, wanted: bool) -> Iterator[StudioBeside | None]:
    """The studio for the runs of a folder while the block lasts; None when it is not wanted."""
    if not wanted:
        yield None
        return
    beside = StudioBeside(runs)
    try:
        yield beside
    finally:
        beside.end()
