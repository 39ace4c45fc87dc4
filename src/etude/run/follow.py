"""Read a log without reading all of it: its newest events from the end, and what is new behind a byte offset.

``etude runs`` and the page ask for the newest events of every run, and the page asks every few seconds for what a
training has added. Both read files that anyone may have put there: only plain files are opened.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from etude.errors import InputError
from etude.untrusted import MAX_LINE_BYTES, Unreadable, open_plain, readable

TAIL_BYTES = 2**16
"""How much of a log the page reads for its newest events."""
PIECE_BYTES = 2**21
"""About how many bytes one answer of :func:`read_from` has."""
LONG_BYTES = 2**23
"""A log longer than this is thinned when it is read from its beginning."""
STEPS_KEPT = 20_000
SUMMARIES_KEPT = 400


def newest_events(
    log: Path, kinds: Collection[str], most_bytes: int | None = None
) -> dict[str, dict[str, Any]]:
    """Return the last event of each of ``kinds``, by kind, reading the log from its end.

    Only lines that may hold a missing kind are parsed, so the log of a million steps takes a fraction of a second. With
    ``most_bytes`` only that much of the end is read. A kind that is not there is not in the result, and nothing is in
    it where there is no log or something else than a plain file.

    Raises:
        Unreadable: this account may not read the log.
    """
    newest: dict[str, dict[str, Any]] = {}
    missing = {kind: f'"{kind}"'.encode() for kind in kinds}
    for block in _blocks_from_the_end(log, most_bytes):
        if not missing:
            break
        if not any(name in block for name in missing.values()):
            continue
        for line in reversed(block.split(b"\n")):
            if any(name in line for name in missing.values()):
                with suppress(ValueError, RecursionError):
                    event = json.loads(line)
                    kind = event.get("event") if isinstance(event, dict) else None
                    if isinstance(kind, str) and kind in missing:
                        newest[kind] = event
                        del missing[kind]
    return newest


def _blocks_from_the_end(log: Path, most_bytes: int | None) -> Iterator[bytes]:
    """Yield a file's lines in blocks of many whole lines, the last block first, without lines too long for a log."""
    try:
        with readable(log):
            file = open_plain(log)
    except Unreadable:
        raise
    except (OSError, InputError):
        return
    with file:
        end = file.seek(0, os.SEEK_END)
        begin = 0 if most_bytes is None else max(0, end - most_bytes)
        position, rest = end, b""
        while position > begin:
            size = min(MAX_LINE_BYTES, position - begin)
            position -= size
            file.seek(position)
            begun, _, block = (file.read(size) + rest).partition(b"\n")
            rest = begun if len(begun) < MAX_LINE_BYTES else b""
            yield block
        if begin == 0:
            yield rest


@dataclass(frozen=True)
class Piece:
    """Whole lines of a log.

    Attributes:
        offset: of the first byte that was not read.
        more: whether more can be read at once.
        reset: the log is shorter than what was read before, so it is another one.
        every: of the steps, only every so many-th is among the lines.
    """

    lines: list[bytes]
    offset: int
    more: bool = False
    reset: bool = False
    every: int = 1


def read_from(path: Path, offset: int) -> Piece:
    """Return the lines behind ``offset``; a torn last line waits until it is whole.

    A long log that is read from its beginning is thinned: of its steps and summaries evenly spaced ones are returned.
    """
    try:
        file = open_plain(path)
    except OSError:
        return Piece([], 0, reset=offset > 0)
    except InputError:
        return Piece([], 0)
    with file:
        size = os.fstat(file.fileno()).st_size
        reset = size < offset
        begin = 0 if reset else offset
        if begin == 0 and size > LONG_BYTES:
            return _thinned(file, size, reset)
        file.seek(begin)
        chunk = file.read(PIECE_BYTES)
    end = chunk.rfind(b"\n") + 1
    if end == 0 and len(chunk) >= PIECE_BYTES:  # skip a line that no run wrote
        return Piece([], begin + len(chunk), more=True, reset=reset)
    lines = [line for line in chunk[:end].splitlines() if _is_event(line)]
    return Piece(lines, begin + end, begin + len(chunk) < size, reset)


def _thinned(file: BinaryIO, size: int, reset: bool) -> Piece:
    """Return a long log without most of its steps and summaries: evenly spaced ones stay."""
    kinds = {b'"event": "step"': STEPS_KEPT, b'"event": "summary"': SUMMARIES_KEPT}
    lines: list[tuple[int, bytes]] = []
    seen = dict.fromkeys(kinds, 0)
    kept: dict[bytes, list[tuple[int, bytes]]] = {kind: [] for kind in kinds}
    strides = dict.fromkeys(kinds, 1)
    offset = 0
    for number, line in enumerate(file):
        if not line.endswith(b"\n"):
            break
        offset += len(line)
        kind = next((kind for kind in kinds if kind in line[:64]), None)
        if kind is None:
            lines.append((number, line))
            continue
        if seen[kind] % strides[kind] == 0:
            kept[kind].append((number, line))
            if len(kept[kind]) > 2 * kinds[kind]:  # twice as many as there may be: drop every second one
                kept[kind] = kept[kind][::2]
                strides[kind] *= 2
        seen[kind] += 1
    for some in kept.values():
        lines += some
    ordered = [line.rstrip(b"\n") for _, line in sorted(lines)]
    return Piece(
        [line for line in ordered if _is_event(line)],
        offset,
        offset < size,
        reset,
        strides[b'"event": "step"'],
    )


def _is_event(line: bytes) -> bool:
    """Return whether the page can parse a line: it parses all at once, and one bad line would spoil the others."""
    if len(line) > MAX_LINE_BYTES or not line.startswith(b"{"):
        return False
    try:
        event = json.loads(line, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return isinstance(event, dict) and type(event.get("step")) is int and isinstance(event.get("event"), str)


def _refuse(name: str) -> None:
    raise ValueError(name)
