"""Prepare the text of a model for a picture: escape characters without a glyph, and wrap lines."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})


def printable(text: str, has_glyph: Callable[[str], bool]) -> str:
    r"""Replace tabs by blanks, and characters that cannot be drawn by \x07, \u4e2d or \U0001f600. Newlines stay."""
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
    """Return the width in monospace cells: wide East Asian characters take two, combining marks none."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


def wrapped(text: str, columns: int, max_lines: int) -> list[str]:
    """Wrap text to lines of at most `columns` cells, at blanks where possible. Blank lines are dropped.

    If more than `max_lines` are needed, the rest is dropped and the last line ends in an ellipsis.
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
    """Break a word that is too wide into parts of at most `columns` cells."""
    parts, width = [""], 0
    for character in word:
        cells = columns_of(character)
        if width + cells > columns and parts[-1]:
            parts.append("")
            width = 0
        parts[-1] += character
        width += cells
    return parts
