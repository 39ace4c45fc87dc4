"""Serve the studio beside a training run, from a process of its own, which outlives the run only while it is used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any

from etude.serve.printed_address import printed_address

STAY = 600
"""Seconds that the server keeps running after the last request, once the training has ended."""


class StudioBeside:
    """The server's process, and its address once it is known."""

    def __init__(self, runs: Path) -> None:
        self._address = ""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "etude.serve", str(runs), str(STAY), str(os.getpid())],
            stdin=subprocess.PIPE,  # closed when this process ends, even if it is killed: the server then ends too
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C must reach only the training
        )
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def address(self, seconds: float = 5.0) -> str:
        """Return the address of the page, as it may be printed; empty if the server takes longer than ``seconds``."""
        self._reader.join(seconds)
        return printed_address(self._address)

    def end(self) -> bool:
        """End the server, unless the page is in use. Returns whether the server stays."""
        with suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        line: dict[str, Any] = {}
        answer = Thread(target=lambda: line.update(self._line()), daemon=True)
        answer.start()
        answer.join(3)
        if line.get("stays"):
            return True
        try:
            self._process.wait(3)
        except subprocess.TimeoutExpired:
            self._process.kill()
        return False

    def _read(self) -> None:
        self._address = self._line().get("address", "")

    def _line(self) -> dict[str, Any]:
        """Read the next line of the server's output, a JSON object; empty if the server has ended."""
        assert self._process.stdout is not None
        with suppress(ValueError, OSError):
            line: dict[str, Any] = json.loads(self._process.stdout.readline())
            return line
        return {}


@contextmanager
def studio_beside(runs: Path, wanted: bool) -> Iterator[StudioBeside | None]:
    """Serve the studio for the runs of a folder while the block runs; yields None unless ``wanted``."""
    if not wanted:
        yield None
        return
    beside = StudioBeside(runs)
    try:
        yield beside
    finally:
        if beside.end():
            print(
                f"the page stays at {beside.address()} until {STAY // 60} minutes after its last use",
                flush=True,
            )
