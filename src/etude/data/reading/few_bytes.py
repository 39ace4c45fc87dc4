"""Judge an encoding from a few non-ASCII bytes, too few for a detector that uses frequencies."""

from __future__ import annotations

import re
from collections.abc import Sequence

ENOUGH_BYTES = 20
"""A detection from fewer non-ASCII bytes is a guess."""
_CYRILLIC = ("cp1251", "koi8-r")
_WORD = re.compile("[\u0410-\u042f\u0401]?[\u0430-\u044f\u0451]+")
_VOWEL = re.compile("[аеёиоуыэюя]", re.IGNORECASE)
_ALONE = re.compile(rb"[A-Za-z][\xc0-\xff](?![\x80-\xff])|(?<![\x80-\xff])[\xc0-\xff][A-Za-z]")
_QUOTES = re.compile(
    rb"[A-Za-z]\xd5[a-z]"  # as in don't
    rb"|(?:[a-z]|[A-Za-z][.,!?])[\xd3\xd5](?=[\s).,;:!?]|$)"  # at the end of what is quoted
)
_LETTERS_OF_WINDOWS = re.compile(rb"[a-z][\xe0-\xff][a-z]")
_LEAST_SHARE = 0.02


def quotes_of_mac_roman(sample: bytes) -> bool:
    """Return whether curly quotes and apostrophes of Mac Roman stand where they belong.

    In the encodings of Windows the same bytes are accented capitals, which never follow a small letter.
    """
    quotes = len(_QUOTES.findall(sample))
    high = sum(byte > 0x7F for byte in sample)
    return quotes > len(_LETTERS_OF_WINDOWS.findall(sample)) and quotes >= _LEAST_SHARE * high


def single_byte(sample: bytes, runs: Sequence[bytes]) -> list[str]:
    """Return single-byte encodings in which all of a short ``sample`` reads as Russian words or as Latin letters.

    ``runs`` are its runs of non-ASCII bytes.
    """
    candidates = [codec for codec in _CYRILLIC if all(_is_word(run.decode(codec, "replace")) for run in runs)]
    if all(len(run) == 1 for run in runs) and len(_ALONE.findall(sample)) == len(runs):
        candidates.insert(0, "cp1252")
    return candidates


def _is_word(text: str) -> bool:
    """Return whether ``text`` has the capitals and vowels of Russian words."""
    vowels = len(_VOWEL.findall(text))
    return _WORD.fullmatch(text) is not None and (len(text) == 1 or 0 < vowels < len(text))
