"""The logs of a run: append-only files with one JSON object per line. An incomplete last line is skipped."""

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
"""Size of the blocks in which a log is read for hashing."""


def _line(event: dict[str, Any]) -> str:
    # NaN is not JSON, and a lone surrogate is not UTF-8: other programs could not read a line with either.
    text = json.dumps(event, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "replace").decode("utf-8") + "\n"


@dataclass(frozen=True)
class Prefix:
    """The beginning of a log: its number of bytes, and their BLAKE2b-128 in hexadecimal."""

    num_bytes: int
    hash: str


class JsonLines:
    """An append-only log with one JSON object per line. An incomplete line has no line end, or does not parse."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._running = new_hash()
        self._hashed: int | None = None  # bytes in the running hash; None until the first call of prefix()

    def append(self, *events: dict[str, Any]) -> None:
        """Append a line for each event, all in one write.

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
        """Flush the log to disk. Required before a checkpoint that records its hash is committed."""
        try:
            if self.path.exists():
                flush_file(self.path)
                flush_folder(self.path.parent)
        except OSError as error:
            raise write_failure(self.path, error) from error

    def prefix(self) -> Prefix:
        """Return the current length and hash of the log.

        The first call reads the file. Later lines of this object are hashed as they are written: every checkpoint needs
        the prefix, and a run of a million steps must not read its whole log for each.
        """
        if self._hashed is None:
            self._hashed = sum(map(len, self._hashing(self._running)))
        return Prefix(self._hashed, self._running.hexdigest())

    def prefixes(self, lengths: Iterable[int]) -> dict[int, str | None]:
        """Return the hash of the first ``length`` bytes for each of ``lengths``, in one pass; None beyond the end."""
        hashes: dict[int, str | None] = {}
        running, hashed = new_hash(), 0
        for length in sorted(set(lengths)):
            hashed += sum(map(len, self._hashing(running, hashed, length - hashed)))
            hashes[length] = running.hexdigest() if hashed == length else None
        return hashes

    def starts_with(self, prefix: Prefix) -> bool:
        """Return whether the log's first bytes have the hash of ``prefix``."""
        return self.prefixes([prefix.num_bytes])[prefix.num_bytes] == prefix.hash

    def truncate_to(self, prefix: Prefix) -> None:
        """Truncate the log to the length of ``prefix``, with which it must start."""
        try:
            if self.path.exists() and self.path.stat().st_size > prefix.num_bytes:
                os.truncate(self.path, prefix.num_bytes)
                self.sync()
                self._running, self._hashed = new_hash(), None
        except OSError as error:
            raise write_failure(self.path, error) from error

    def drop_after(self, step: int) -> None:
        """Remove the lines after ``step``, so that no step is logged twice when the run resumes from it.

        The remaining lines keep their bytes. Damaged lines and the "end" events of sessions are removed as well.
        """
        kept = [
            line + b"\n"
            for line, event in self._lines()
            if event.get("step", 0) <= step and event.get("event") != "end"
        ]
        write_atomic(self.path, b"".join(kept))
        self._running, self._hashed = new_hash(), None

    def read(self) -> list[dict[str, Any]]:
        """Return the object of every whole line, without incomplete and damaged lines."""
        return list(self.events())

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield the objects of :meth:`read` one at a time: those of a million steps would take gigabytes."""
        return (event for _, event in self._lines())

    def _hashing(self, running: Any, start: int = 0, max_bytes: int | None = None) -> Iterator[bytes]:
        """Add at most ``max_bytes`` bytes from ``start`` on to the hash ``running``, and yield them in blocks."""
        if not self.path.is_file():
            return
        with self.path.open("rb") as file:
            file.seek(start)
            while block := file.read(HASH_BYTES if max_bytes is None else min(HASH_BYTES, max_bytes)):
                running.update(block)
                max_bytes = None if max_bytes is None else max_bytes - len(block)
                yield block

    def _lines(self) -> Iterator[tuple[bytes, dict[str, Any]]]:
        """Yield each valid line as (bytes without the line end, object)."""
        with readable(self.path):
            if not self.path.is_file():
                return
            file = open_plain(self.path)
        with file:
            while line := file.readline(MAX_LINE_BYTES):
                while len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
                    line = file.readline(MAX_LINE_BYTES)  # skip the rest: Etude writes no line of this length
                with suppress(ValueError, UnicodeDecodeError, RecursionError):
                    event = json.loads(line)
                    if isinstance(event, dict) and isinstance(event.get("step", 0), int):
                        yield line.removesuffix(b"\n"), event
