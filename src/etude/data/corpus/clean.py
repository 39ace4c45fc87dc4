"""Normalise text, and say of each document whether it is kept and why not."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Literal

from etude.data.corpus.combining import in_short_runs

Form = Literal["NFC", "NFKC", "none"]
Filter = Callable[[str], tuple[bool, str]]

MAX_UNREADABLE_SHARE = 0.1
"""A document with a larger share of characters that stand for nothing is dropped."""

_LINE_ENDS = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_UNREADABLE = re.compile("[\ufffd\ufffe\uffff\ue000-\uf8ff]")


def normalise(text: str, form: Form) -> str:
    """Text in the Unicode normalisation ``form``, with ``\\n`` as its only line end and without control characters.

    A byte order mark at the start goes; tabs stay; half of a surrogate pair becomes U+FFFD. Of more
    than 30 combining marks in a row, every 30 are parted by U+034F (:mod:`etude.data.corpus.combining`).
    """
    text = text.removeprefix("\ufeff")
    text = _LINE_ENDS.sub("\n", text)
    text = _CONTROL.sub("", text)
    if text.isascii():
        return text
    text = _SURROGATE.sub("\ufffd", text)
    return text if form == "none" else unicodedata.normalize(form, in_short_runs(text, form))


def not_blank(text: str) -> tuple[bool, str]:
    """Keep text with something else than white space in it."""
    return (True, "") if text.strip() else (False, "blank")


def readable(text: str) -> tuple[bool, str]:
    """Keep text of which at most a tenth is replacement characters or private-use code points."""
    if text.isascii():
        return True, ""
    share = len(_UNREADABLE.findall(text)) / len(text)
    return (share <= MAX_UNREADABLE_SHARE, "unreadable characters")


def long_enough(min_chars: int) -> Filter:
    """Keep text of at least ``min_chars`` characters."""

    def keep(text: str) -> tuple[bool, str]:
        return len(text) >= min_chars, f"shorter than {min_chars} characters"

    return keep


def filters(min_chars: int) -> tuple[Filter, ...]:
    """The filters of a corpus, in the order in which they are asked."""
    return (not_blank, long_enough(min_chars), readable)


def judge(text: str, asked: tuple[Filter, ...]) -> tuple[bool, str]:
    """(keep, reason): the first filter that refuses gives the reason."""
    for one in asked:
        keep, reason = one(text)
        if not keep:
            return False, reason
    return True, ""
