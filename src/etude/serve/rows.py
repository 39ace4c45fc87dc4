"""A run's log as the page reads it: what is new behind a byte offset, and a long one thinned at the first reading."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from etude.errors import InputError
from etude.untrusted import MAX_LINE_BYTES, open_plain

AT_ONCE = 2**21
"""Bytes of an answer, about."""
LONG = 2**23
"""A log of more bytes than this is thinned when it is read from its beginning."""
STEPS_KEPT = 20_000
SUMMARIES_KEPT = 400


@dataclass(frozen=True)
class Piece:
    """Whole lines of a log.

    Attributes:
        offset: of the first byte that was not read.
        more: whether there is more at once.
        reset: the log is shorter than what was read: it is another one.
        every: only each so many-th step is among the lines.
    """

    lines: list[bytes]
    offset: int
    more: bool = False
    reset: bool = False
    every: int = 1


def read_from(path: Path, offset: int) -> Piece:
    """The lines behind ``offset``; a torn last one waits until it is whole."""
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
        if begin == 0 and size > LONG:
            return _thinned(file, size, reset)
        file.seek(begin)
        chunk = file.read(AT_ONCE)
    end = chunk.rfind(b"\n") + 1
    if end == 0 and len(chunk) >= AT_ONCE:  # a line that is none of ours: passed over
        return Piece([], begin + len(chunk), more=True, reset=reset)
    lines = [line for line in chunk[:end].splitlines() if _plausible(line)]
    return Piece(lines, begin + end, begin + len(chunk) < size, reset)


def _thinned(file: object, size: int, reset: bool) -> Piece:
    """All of a long log but most of its steps and summaries: evenly spread ones stay, the newest among them."""
    kinds = {b'"event": "step"': STEPS_KEPT, b'"event": "summary"': SUMMARIES_KEPT}
    lines: list[tuple[int, bytes]] = []
    seen = dict.fromkeys(kinds, 0)
    kept: dict[bytes, list[tuple[int, bytes]]] = {kind: [] for kind in kinds}
    strides = dict.fromkeys(kinds, 1)
    offset = 0
    for number, line in enumerate(file):  # type: ignore[arg-type, var-annotated]
        if not line.endswith(b"\n"):
            break
        offset += len(line)
        kind = next((kind for kind in kinds if kind in line[:64]), None)
        if kind is None:
            lines.append((number, line))
            continue
        if seen[kind] % strides[kind] == 0:
            kept[kind].append((number, line))
            if len(kept[kind]) > 2 * kinds[kind]:  # twice as many as there may be: every other one goes
                kept[kind] = kept[kind][::2]
                strides[kind] *= 2
        seen[kind] += 1
    for some in kept.values():
        lines += some
    found = [line.rstrip(b"\n") for _, line in sorted(lines)]
    return Piece(
        [line for line in found if _plausible(line)],
        offset,
        offset < size,
        reset,
        strides[b'"event": "step"'],
    )


def _plausible(line: bytes) -> bool:
    """Whether it may go to the page as it is: the page parses all lines at once, and one bad one would spoil them."""
    import json

    if len(line) > MAX_LINE_BYTES or not line.startswith(b"{"):
        return False
    try:
        found = json.loads(line, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and type(found.get("step")) is int and isinstance(found.get("event"), str)


def _refuse(name: str) -> None:
    raise ValueError(name)
