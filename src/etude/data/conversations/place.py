"""A place in a rendered conversation, for messages."""

from __future__ import annotations

from etude.untrusted import one_line

_BESIDE = 40


def place(text: str, position: int) -> str:
    """Return the characters before and after a place in one line, with line ends as ``\\n``."""
    before, after = text[max(0, position - _BESIDE) : position], text[position : position + _BESIDE]
    return f"'{_shown(before)}' | '{_shown(after)}'"


def _shown(text: str) -> str:
    return one_line(text.replace("\n", "\\n").replace("\t", "\\t"))
