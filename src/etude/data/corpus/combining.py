"""Runs of combining marks of bounded length (the Stream-Safe Text Format of Unicode, UAX #15, section 13).

Normalisation sorts the marks of a run in quadratic time. No writing system needs more than a few marks on one letter; a
hostile text may hold a million.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Literal

MAX_MARKS = 30
JOINER = "\u034f"
"""COMBINING GRAPHEME JOINER: invisible, and normalisation does not move it."""

_FIRST, _LAST = 0x300, 0x1F000
"""Every character that combines, or decomposes into one that does, lies in this range (tested for all characters)."""


def in_short_runs(text: str, form: Literal["NFC", "NFKC"]) -> str:
    """Insert :data:`JOINER` after every :data:`MAX_MARKS` combining marks in a row; return other text unchanged."""
    mark, long_run = _patterns(form)
    # Any 31 consecutive characters include one of every 31st, so most texts need only these checked.
    if not mark.search(text[MAX_MARKS :: MAX_MARKS + 1]):
        return text
    return long_run.sub(lambda run: _parted(run[0], form), text)


def _parted(run: str, form: Literal["NFC", "NFKC"]) -> str:
    decomposed: Literal["NFD", "NFKD"] = "NFD" if form == "NFC" else "NFKD"
    marks = "".join(unicodedata.normalize(decomposed, mark) for mark in run)
    return JOINER.join(marks[at : at + MAX_MARKS] for at in range(0, len(marks), MAX_MARKS))


@lru_cache(maxsize=2)
def _patterns(form: Literal["NFC", "NFKC"]) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return patterns for (a mark, more than :data:`MAX_MARKS` in a row). A mark decomposes into marks only."""
    decomposed: Literal["NFD", "NFKD"] = "NFD" if form == "NFC" else "NFKD"
    marks = "".join(chr(code) for code in range(_FIRST, _LAST) if is_mark(chr(code), decomposed))
    return re.compile(f"[{marks}]"), re.compile(f"[{marks}]{{{MAX_MARKS + 1},}}")


def is_mark(char: str, decomposed: Literal["NFD", "NFKD"]) -> bool:
    """Return whether the decomposition begins with a character that is sorted (a non-zero combining class)."""
    return unicodedata.combining(unicodedata.normalize(decomposed, char)[0]) != 0
