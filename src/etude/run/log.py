"""The logs of a run: append-only files with one JSON object per line; a torn last line is recognised and skipped."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude.files import flush_file, flush_folder, new_hash, write_atomic, write_failure
from etude.untrusted import MAX_LINE_BYTES, open_plain, readable

EVENT_SCHEMA = 1
HASH_BYTES = 1 << 20
"""A log is hashed in pieces of this size."""


def _line(event: dict[str, Any]) -> str:
    # NaN is not JSON, and half a surrogate pair is not UTF-8: either would make a line that others cannot read.
    text = json.dumps(event, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "replace").decode("utf-8") + "\n"


@dataclass(frozen=True)
class Prefix:
    """How a log begins: a number of bytes, and their BLAKE2b-128 in hexadecimal."""

    num_bytes: int
    hash: str


class JsonLines:
    """An append-only log with one JSON object per line; a line is written whole or recognised as torn."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._running = new_hash()
        self._hashed: int | None = None  # bytes in the running hash; None until the first call of prefix()

    def append(self, *events: dict[str, Any]) -> None:
        """Add a line for each event and hand them to the operating system at once.

        Raises:
            EtudeError: the file cannot be written.
        """
        content = "".join(map(_line, events)).encode("utf-8")
        try:
            with self.path.open("ab") as file:
                file.write(content)
        except OSError as error:
            raise write_failure(self.path, error) from error
        if self._hashed is not None:
            self._running.update(content)
            self._hashed += len(content)

    def sync(self) -> None:
        """Flush the log to disk, before another file relies on it."""
        try:
            if self.path.exists():
                flush_file(self.path)
                flush_folder(self.path.parent)
        except OSError as error:
            raise write_failure(self.path, error) from error

    def prefix(self) -> Prefix:
        """Return the length and hash of the log as it is now.

        The first call reads the file. What is appended through this object afterwards is hashed as it is written: every
        checkpoint asks for the prefix, and a run of a million steps must not read its whole record each time.
        """
        if self._hashed is None:
            self._hashed = sum(map(len, self._hashing(self._running)))
        return Prefix(self._hashed, self._running.hexdigest())

    def prefixes(self, lengths: Iterable[int]) -> dict[int, str | None]:
        """Return the hash of the first bytes for each of several ``lengths``, in one reading; None beyond the end."""
        hashes: dict[int, str | None] = {}
        running, hashed = new_hash(), 0
        for length in sorted(set(lengths)):
            hashed += sum(map(len, self._hashing(running, hashed, length - hashed)))
            hashes[length] = running.hexdigest() if hashed == length else None
        return hashes

    def begins_with(self, prefix: Prefix) -> bool:
        """Return whether the log's first bytes are those of ``prefix``."""
        return self.prefixes([prefix.num_bytes])[prefix.num_bytes] == prefix.hash

    def cut_to(self, prefix: Prefix) -> None:
        """Truncate the log to ``prefix``, with which it begins."""
        try:
            if self.path.exists() and self.path.stat().st_size > prefix.num_bytes:
                os.truncate(self.path, prefix.num_bytes)
                self.sync()
                self._running, self._hashed = new_hash(), None
        except OSError as error:
            raise write_failure(self.path, error) from error

    def cut_back(self, step: int) -> None:
        """Remove the lines after ``step``, so that no step is logged twice when the run continues from there.

        The lines that stay keep their bytes; damaged lines and the "end" of a session are removed.
        """
        kept = [
            line + b"\n"
            for line, event in self._lines()
            if event.get("step", 0) <= step and event.get("event") != "end"
        ]
        write_atomic(self.path, b"".join(kept))
        self._running, self._hashed = new_hash(), None

    def read(self) -> list[dict[str, Any]]:
        """Return the object of every whole line; torn and damaged lines are skipped."""
        return list(self.events())

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield what :meth:`read` returns, one at a time: the log of a million steps has gigabytes of objects."""
        return (event for _, event in self._lines())

    def _hashing(self, running: Any, start: int = 0, most: int | None = None) -> Iterator[bytes]:
        """Add at most ``most`` bytes from ``start`` on to the hash ``running``, and yield them in pieces."""
        if not self.path.is_file():
            return
        with self.path.open("rb") as file:
            file.seek(start)
            while piece := file.read(HASH_BYTES if most is None else min(HASH_BYTES, most)):
                running.update(piece)
                most = None if most is None else most - len(piece)
                yield piece

    def _lines(self) -> Iterator[tuple[bytes, dict[str, Any]]]:
        """Yield the bytes of each whole line, without its end, and its object."""
        with readable(self.path):
            if not self.path.is_file():
                return
            file = open_plain(self.path)
        with file:
            while line := file.readline(MAX_LINE_BYTES):
                while len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
                    line = file.readline(MAX_LINE_BYTES)  # skip the rest of a line that no run wrote
                with suppress(ValueError, UnicodeDecodeError, RecursionError):
                    event = json.loads(line)
                    if isinstance(event, dict) and isinstance(event.get("step", 0), int):
                        yield line.removesuffix(b"\n"), event
