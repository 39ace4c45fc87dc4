"""Normalise text, and say of each document whether it is kept and why not."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from typing import Literal

from etude.data.corpus.combining import JOINER, in_short_runs

Form = Literal["NFC", "NFKC", "none"]
Filter = Callable[[str], tuple[bool, str]]

MAX_UNREADABLE_SHARE = 0.1
"""A document with a larger share of characters that stand for nothing is dropped."""

_LINE_ENDS = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
_CONTROL = re.compile("[\x01-\x08\x0e-\x1f\x7f\x81\x8d\x8f\x90\x9d]")
_WINDOWS_1252 = {
    code: bytes([code]).decode("cp1252") for code in range(0x80, 0xA0) if code not in b"\x81\x8d\x8f\x90\x9d"
}
_C1 = "".join(map(chr, _WINDOWS_1252))
_MISREAD, _C1_CHARACTER = re.compile(f"[{_C1.replace(chr(0x85), '')}]"), re.compile(f"[{_C1}]")
"""Control characters that are not typed: windows-1252 that was once read as iso-8859-1. U+0085 is a line end too."""
_SURROGATE = re.compile("[\ud800-\udfff]")
_UNREADABLE = re.compile("[\ufffd\ufffe\uffff\ue000-\uf8ff]")


def normalise(text: str, form: Form, changed: Counter[str] | None = None) -> str:
    """Text in the Unicode normalisation ``form``, with ``\\n`` as its only line end and without control characters.

    Tabs stay; byte order marks go, also inside; half of a surrogate pair becomes U+FFFD; C1 control characters become
    what windows-1252 has at their place; of more than 30 combining marks in a row, every 30 are parted by U+034F
    (:mod:`etude.data.corpus.combining`). ``changed`` counts all of these.
    """
    count: Counter[str] = Counter() if changed is None else changed
    if text.startswith("\ufeff"):  # what it says has been heeded: no part of the text, and not counted
        text = text[1:]
    if not text.isascii():
        text = _repaired(text, count)
    text = _LINE_ENDS.sub("\n", text)
    text = _without(text, "\0", "NUL characters removed", count)
    text, controls = _CONTROL.subn("", text)
    _add(count, "other control characters removed", controls)
    if text.isascii():
        return text
    text, halves = _SURROGATE.subn("\ufffd", text)
    _add(count, "halves of surrogate pairs replaced", halves)
    if form == "none":
        return text
    parted = in_short_runs(text, form)
    _add(count, "long runs of combining marks parted", parted.count(JOINER) - text.count(JOINER))
    return unicodedata.normalize(form, parted)


def _repaired(text: str, count: Counter[str]) -> str:
    """``text`` without byte order marks, and with C1 control characters as windows-1252 has them."""
    text = _without(text, "\ufeff", "byte order marks inside a text removed", count)
    if not _MISREAD.search(text):
        return text
    _add(count, "C1 control characters read as windows-1252", len(_C1_CHARACTER.findall(text)))
    return text.translate(_WINDOWS_1252)


def _without(text: str, char: str, what: str, count: Counter[str]) -> str:
    found = text.count(char)
    _add(count, what, found)
    return text.replace(char, "") if found else text


def _add(count: Counter[str], what: str, number: int) -> None:
    if number:
        count[what] += number


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
