"""Normalise text, and decide which documents are kept and why the others are dropped."""

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
"""Documents with a larger share of replacement and private-use characters are dropped."""

_LINE_ENDS = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
_CONTROL = re.compile("[\x01-\x08\x0e-\x1f\x7f\x81\x8d\x8f\x90\x9d]")
_WINDOWS_1252 = {
    code: bytes([code]).decode("cp1252") for code in range(0x80, 0xA0) if code not in b"\x81\x8d\x8f\x90\x9d"
}
_C1 = "".join(map(chr, _WINDOWS_1252))
_MISREAD, _C1_CHARACTER = re.compile(f"[{_C1.replace(chr(0x85), '')}]"), re.compile(f"[{_C1}]")
"""C1 control characters: windows-1252 text that was once decoded as iso-8859-1. U+0085 is a line end as well."""
_SURROGATE = re.compile("[\ud800-\udfff]")
_UNREADABLE = re.compile("[\ufffd\ufffe\uffff\ue000-\uf8ff]")


def normalise(text: str, form: Form, changed: Counter[str] | None = None) -> str:
    """Return the text in the Unicode normalisation ``form``, with ``\\n`` line ends and without control characters.

    Tabs stay. Byte order marks are removed, also inside the text. Half of a surrogate pair becomes U+FFFD. C1 control
    characters become the windows-1252 character of the same code. U+034F is inserted after every 30 combining marks
    in a row (:mod:`etude.data.corpus.combining`). ``changed`` counts each kind of change.
    """
    count: Counter[str] = Counter() if changed is None else changed
    if text.startswith(
        "\ufeff"
    ):  # the mark of the encoding, which the reader has used: not text, not counted
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
    """Return ``text`` without byte order marks, and with C1 control characters read as windows-1252."""
    text = _without(text, "\ufeff", "byte order marks inside a text removed", count)
    if not _MISREAD.search(text):
        return text
    _add(count, "C1 control characters read as windows-1252", len(_C1_CHARACTER.findall(text)))
    return text.translate(_WINDOWS_1252)


def _without(text: str, char: str, what: str, count: Counter[str]) -> str:
    number = text.count(char)
    _add(count, what, number)
    return text.replace(char, "") if number else text


def _add(count: Counter[str], what: str, number: int) -> None:
    if number:
        count[what] += number


def not_blank(text: str) -> tuple[bool, str]:
    """Keep text that holds more than white space."""
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
    """Return the filters of a corpus, in the order in which they are applied."""
    return (not_blank, long_enough(min_chars), readable)


def judge(text: str, applied: tuple[Filter, ...]) -> tuple[bool, str]:
    """Return (keep, reason); the reason is that of the first filter that refuses."""
    for accepts in applied:
        keep, reason = accepts(text)
        if not keep:
            return False, reason
    return True, ""
