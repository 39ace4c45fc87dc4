"""Why a conversation cannot be trained, and the place in its rendered text."""

from __future__ import annotations

from etude.errors import InputError
from etude.untrusted import one_line

_BESIDE = 40


class Untrainable(InputError):
    """A conversation whose trained tokens are not certain.

    ``reason`` is a short category, by which rows are counted; the message also has the place and the remedy.
    """

    def __init__(self, reason: str, where: str, remedy: str) -> None:
        super().__init__(f"{reason}, at {where}: {remedy}")
        self.reason = reason


def place(text: str, position: int) -> str:
    """Return the characters before and after a place in one line, with line ends as ``\\n``."""
    before, after = text[max(0, position - _BESIDE) : position], text[position : position + _BESIDE]
    return f"'{_shown(before)}' | '{_shown(after)}'"


def _shown(text: str) -> str:
    return one_line(text.replace("\n", "\\n").replace("\t", "\\t"))
