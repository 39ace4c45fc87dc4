"""The studio's server beside a training: a process of its own, which outlives it only for whoever looks."""

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
"""Seconds from the last look until a page ends whose training has ended."""


class StudioBeside:
    """The server's process, and its address once it is known."""

    def __init__(self, runs: Path) -> None:
        self._address = ""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "etude.serve", str(runs), str(STAY), str(os.getpid())],
            stdin=subprocess.PIPE,  # it ends when this does, however that comes about
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the training
        )
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def address(self, seconds: float = 5.0) -> str:
        """Where the page is, as it may be printed; an empty text when the server has not begun by then."""
        self._reader.join(seconds)
        return printed_address(self._address)

    def end(self) -> bool:
        """End the server, unless somebody has looked at the page: then it stays for them, and this is true."""
        with suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        said: dict[str, Any] = {}
        answer = Thread(target=lambda: said.update(self._line()), daemon=True)
        answer.start()
        answer.join(3)
        if said.get("stays"):
            return True
        try:
            self._process.wait(3)
        except subprocess.TimeoutExpired:
            self._process.kill()
        return False

    def _read(self) -> None:
        self._address = self._line().get("address", "")

    def _line(self) -> dict[str, Any]:
        """What the server says next; nothing where it has ended."""
        assert self._process.stdout is not None
        with suppress(ValueError, OSError):
            said: dict[str, Any] = json.loads(self._process.stdout.readline())
            return said
        return {}


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
        if beside.end():
            print(
                f"the page stays at {beside.address()} until {STAY // 60} minutes after the last look",
                flush=True,
            )
