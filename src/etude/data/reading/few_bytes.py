"""What a few bytes beyond ASCII say about an encoding, where a detector by frequencies has too little to go by."""

from __future__ import annotations

import re
from collections.abc import Sequence

ENOUGH_BYTES = 20
"""Bytes beyond ASCII: a detection from fewer is a guess."""
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
    """Whether curly quotes and apostrophes of Mac Roman stand where they belong.

    The same bytes are capitals with accents in the encodings of Windows, and these never follow a small letter.
    """
    quotes = len(_QUOTES.findall(sample))
    high = sum(byte > 0x7F for byte in sample)
    return quotes > len(_LETTERS_OF_WINDOWS.findall(sample)) and quotes >= _LEAST_SHARE * high


def single_byte(sample: bytes, runs: Sequence[bytes]) -> list[str]:
    """Encodings of one byte a letter in which all of a short ``sample`` reads as words of Russian or as Latin letters.

    ``runs`` are its bytes beyond ASCII.
    """
    found = [codec for codec in _CYRILLIC if all(_is_word(run.decode(codec, "replace")) for run in runs)]
    if all(len(run) == 1 for run in runs) and len(_ALONE.findall(sample)) == len(runs):
        found.insert(0, "cp1252")
    return found


def _is_word(text: str) -> bool:
    """Whether ``text`` has the capitals and vowels of Russian words."""
    vowels = len(_VOWEL.findall(text))
    return _WORD.fullmatch(text) is not None and (len(text) == 1 or 0 < vowels < len(text))
