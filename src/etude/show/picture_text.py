"""Make text of a model fit for a picture: escape what has no glyph, and wrap it."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})


def printable(text: str, has_glyph: Callable[[str], bool]) -> str:
    r"""`text` with tabs as blanks and what cannot be drawn as \x07, \u4e2d or \U0001f600; newlines stay."""
    shown = []
    for character in text.replace("\r\n", "\n").replace("\t", "    "):
        hidden = unicodedata.category(character) in HIDDEN_CATEGORIES
        if character == "\n" or (not hidden and has_glyph(character)):
            shown.append(character)
        else:
            code = ord(character)
            digits = 2 if code < 0x100 else 4 if code < 0x10000 else 8
            shown.append(f"\\{'xuU'[digits // 4]}{code:0{digits}x}")
    return "".join(shown)


def columns_of(text: str) -> int:
    """Width in monospace cells: wide East Asian characters take two, combining marks none."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


def wrapped(text: str, columns: int, max_lines: int) -> list[str]:
    """Lines of at most `columns` cells, broken at blanks where that helps; blank lines are dropped.

    When more than `max_lines` are needed, the last one kept ends in an ellipsis.
    """
    lines: list[str] = []
    for paragraph in text.splitlines():
        line = ""
        for word in paragraph.split(" "):
            joined = f"{line} {word}" if line else word
            if columns_of(joined) > columns >= columns_of(word):
                lines.append(line)
                joined = word
            *full, line = _broken(joined, columns)
            lines.extend(full)
        lines.append(line)
    lines = [line.rstrip() for line in lines if line.strip()]
    if len(lines) > max_lines:
        lines = lines[:max_lines]
        lines[-1] = _broken(lines[-1], columns - 2)[0] + " …"
    return lines


def _broken(word: str, columns: int) -> list[str]:
    parts, width = [""], 0
    for character in word:
        cells = columns_of(character)
        if width + cells > columns and parts[-1]:
            parts.append("")
            width = 0
        parts[-1] += character
        width += cells
    return parts
