"""Read parts of a log: its newest events from the end, or the lines after a byte offset.

``etude runs`` and the page list the newest events of every run, and the page polls a running one for new lines every
few seconds. The files are untrusted: only regular files are opened.
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
"""Bytes at the end of a log that the page searches for its newest events."""
PIECE_BYTES = 2**21
"""The most bytes that one call of :func:`read_from` reads, unless it thins the log."""
LONG_BYTES = 2**23
"""A log longer than this is thinned when it is read from its beginning."""
STEPS_KEPT = 20_000
SUMMARIES_KEPT = 400
"""Least numbers of events that remain of a thinned log, if it has as many; at most twice as many remain."""


def newest_events(
    log: Path, kinds: Collection[str], most_bytes: int | None = None
) -> dict[str, dict[str, Any]]:
    """Return the last event of each of ``kinds`` that occurs, by kind.

    The log is read backwards from its end, at most ``most_bytes`` of it. Only lines that contain the name of a kind
    still to be found are parsed, so the log of a million steps takes a fraction of a second. The result is empty if the
    log is missing or not a regular file.

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
    """Yield blocks of whole lines, the last block first, without lines longer than ``MAX_LINE_BYTES``."""
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
            # The block starts within a line: keep that part for the block before, which has the line's beginning.
            partial_line, _, block = (file.read(size) + rest).partition(b"\n")
            rest = partial_line if len(partial_line) < MAX_LINE_BYTES else b""
            yield block
        if begin == 0:
            yield rest


@dataclass(frozen=True)
class LogPiece:
    """Whole lines of a log.

    Attributes:
        offset: offset of the first byte that was not read.
        more: whether the log has more lines already.
        reset: the log is shorter than the requested offset, so it was replaced or rolled back.
        stride: of the step events, only every ``stride``-th is among the lines.
    """

    lines: list[bytes]
    offset: int
    more: bool = False
    reset: bool = False
    stride: int = 1


def read_from(path: Path, offset: int) -> LogPiece:
    """Return the lines after byte ``offset``, without an incomplete last line.

    A long log that is read from its beginning is thinned to evenly spaced steps and summaries, and all other events.
    """
    try:
        file = open_plain(path)
    except OSError:
        return LogPiece([], 0, reset=offset > 0)
    except InputError:
        return LogPiece([], 0)
    with file:
        size = os.fstat(file.fileno()).st_size
        reset = size < offset
        begin = 0 if reset else offset
        if begin == 0 and size > LONG_BYTES:
            return _thinned(file, size, reset)
        file.seek(begin)
        chunk = file.read(PIECE_BYTES)
    end = chunk.rfind(b"\n") + 1
    if end == 0 and len(chunk) >= PIECE_BYTES:  # skip part of a line that is too long for a log
        return LogPiece([], begin + len(chunk), more=True, reset=reset)
    lines = [line for line in chunk[:end].splitlines() if _is_event(line)]
    return LogPiece(lines, begin + end, begin + len(chunk) < size, reset)


def _thinned(file: BinaryIO, size: int, reset: bool) -> LogPiece:
    """Read a long log in one pass, and keep only every ``stride``-th step and summary."""
    limits = {b'"event": "step"': STEPS_KEPT, b'"event": "summary"': SUMMARIES_KEPT}
    lines: list[tuple[int, bytes]] = []  # (line number, line)
    seen = dict.fromkeys(limits, 0)
    kept: dict[bytes, list[tuple[int, bytes]]] = {kind: [] for kind in limits}
    strides = dict.fromkeys(limits, 1)
    offset = 0
    for number, line in enumerate(file):
        if not line.endswith(b"\n"):
            break
        offset += len(line)
        kind = next((kind for kind in limits if kind in line[:64]), None)
        if kind is None:
            lines.append((number, line))
            continue
        if seen[kind] % strides[kind] == 0:
            kept[kind].append((number, line))
            if len(kept[kind]) > 2 * limits[kind]:
                kept[kind] = kept[kind][::2]
                strides[kind] *= 2
        seen[kind] += 1
    for numbered in kept.values():
        lines += numbered
    ordered = [line.rstrip(b"\n") for _, line in sorted(lines)]
    return LogPiece(
        [line for line in ordered if _is_event(line)],
        offset,
        offset < size,
        reset,
        strides[b'"event": "step"'],
    )


def _is_event(line: bytes) -> bool:
    """Return whether a line is a valid event. The page parses all lines at once: one bad line fails all."""
    if len(line) > MAX_LINE_BYTES or not line.startswith(b"{"):
        return False
    try:
        event = json.loads(line, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return isinstance(event, dict) and type(event.get("step")) is int and isinstance(event.get("event"), str)


def _refuse(name: str) -> None:
    """Refuse NaN and infinities, which Python's parser accepts and a browser's does not."""
    raise ValueError(name)
