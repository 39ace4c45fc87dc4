"""Find which words of a question occur in the training text, since a model cannot be tested with words it never saw."""

from __future__ import annotations

import re
from collections.abc import Iterable, Set

_WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")


def words_of(text: str) -> set[str]:
    """Return the words of a text, ignoring case."""
    return {word.casefold() for word in _WORD.findall(text.replace("\u2019", "'"))}


def known_words(training_text: Iterable[bytes], wanted: Set[str]) -> set[str]:
    """Return those of ``wanted`` that occur in the training text (UTF-8 documents, read one by one)."""
    known: set[str] = set()
    for document in training_text:
        known |= words_of(document.decode("utf-8", "replace")) & wanted
        if len(known) == len(wanted):
            break
    return known
