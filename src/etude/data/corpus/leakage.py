"""Keep every long line of a validation document out of the training text.

Only lines of at least :data:`LINE_CHARS` characters count, without white space at either end. Shorter lines, such as a
speaker's name or "Yes.", recur in any text. Only the lines of the validation part are held in memory.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

LINE_CHARS = 64


def long_lines(text: str) -> Iterable[str]:
    """Yield the stripped lines of ``text`` that are long enough to count."""
    for line in text.split("\n"):
        if len(line) >= LINE_CHARS:
            line = line.strip()
            if len(line) >= LINE_CHARS:
                yield line


def leaked_units(validation: Iterable[tuple[int, str]], training: Iterable[str]) -> set[int]:
    """Return the units that validation must give up: they share a long line with training, directly or indirectly.

    A unit that moves to training takes its lines along, so units that share one of those lines move as well, until
    nothing changes.

    Args:
        validation: (unit, text) of the held-out part; small enough for its lines to be held in memory.
        training: texts of the training part, read once.
    """
    holders: dict[str, set[int]] = defaultdict(set)
    lines_of: dict[int, list[str]] = {}
    for unit, text in validation:
        lines_of[unit] = list(dict.fromkeys(long_lines(text)))
        for line in lines_of[unit]:
            holders[line].add(unit)
    if not holders:
        return set()
    waiting: set[int] = set()
    for text in training:
        for line in long_lines(text):
            if line in holders:
                waiting |= holders[line]
    moved: set[int] = set()
    while waiting:
        unit = waiting.pop()
        moved.add(unit)
        for line in lines_of[unit]:
            waiting |= holders[line] - moved
    return moved
