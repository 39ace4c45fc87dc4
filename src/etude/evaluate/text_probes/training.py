"""Search the training text for what the probes use, in one pass and in bounded memory."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from etude.evaluate.text_probes.passages import word_pattern

WINDOW = 16
"""Texts are searched for by a hash of their first characters; none may be shorter."""

PIECE_CHARS = 2**20
"""Characters of training text processed at a time: about 30 MB with their hashes."""

NUM_WORDS = 13
"""Brown et al. 2020 call an item known when the training text has 13 of its words in a row."""

_TABLE_BITS = 22
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Training:
    """The results of a search of the training text.

    counts: how often each requested word occurs, ignoring case; found: the stretches that occur verbatim; num_chars:
    of the whole text.
    """

    counts: Mapping[str, int]
    found: frozenset[str]
    num_chars: int


def stretches(text: str) -> tuple[str, ...]:
    """Return what the training text must not contain: every 13 words in a row, or all of a shorter text."""
    words = list(word_pattern().finditer(text))
    if len(words) <= NUM_WORDS:
        return (text,)
    pairs = zip(words, words[NUM_WORDS - 1 :], strict=False)
    windows = [text[first.start() : last.end()] for first, last in pairs]
    return tuple(window for window in windows if len(window) >= WINDOW) or (text,)


def search(documents: Iterable[str], words: frozenset[str], wanted: frozenset[str]) -> Training:
    """Count `words` (case-folded) and find which of `wanted` occur in `documents`, each document separately.

    The search is exact: hash matches are verified. Memory is bounded by the requests, one document and one piece of it.
    Raises ValueError if a wanted text is shorter than `WINDOW`.
    """
    look = _Lookup(wanted)
    counts: Counter[str] = Counter()
    found: set[str] = set()
    num_chars = 0
    for text in _batches(documents):
        num_chars += len(text)
        for start, end in _pieces(text):
            if words:
                piece = text[start:end].casefold()
                counts.update(filter(words.__contains__, word_pattern().findall(piece)))
            found |= look.found(text[start : end + look.longest])
    return Training(counts, frozenset(found), num_chars)


def _batches(documents: Iterable[str]) -> Iterator[str]:
    """Join short documents, separated by a zero character, which no wanted text contains."""
    held: list[str] = []
    size = 0
    for document in documents:
        held.append(document)
        size += len(document) + 1
        if size >= PIECE_CHARS:
            yield "\0".join(held)
            held, size = [], 0
    if held:
        yield "\0".join(held)


def _pieces(text: str) -> Iterator[tuple[int, int]]:
    """Split at spaces if possible, so that no word is cut."""
    start = 0
    while start < len(text):
        end = min(start + PIECE_CHARS, len(text))
        if end < len(text):
            space = max(text.rfind(space, max(start, end - 1000), end) for space in " \n\0")
            end = space if space > start else end
        yield start, end
        start = end


class _Lookup:
    """Finds which of some texts occur in a text: windows with the hash of a text's beginning are compared with it."""

    def __init__(self, wanted: frozenset[str]) -> None:
        if any(len(text) < WINDOW or "\0" in text for text in wanted):
            raise ValueError(f"a text to search for has at least {WINDOW} characters, and no zero character")
        self.longest = max(map(len, wanted), default=0)
        self._table = np.zeros(2**_TABLE_BITS, bool)
        self._by_hash: dict[int, list[str]] = defaultdict(list)
        for text in wanted:
            self._by_hash[int(_hashes(text[:WINDOW])[0])].append(text)
        for value in self._by_hash:
            self._table[value >> (64 - _TABLE_BITS)] = True

    def found(self, text: str) -> set[str]:
        if not self._by_hash or len(text) < WINDOW:
            return set()
        hashes = _hashes(text)
        places = np.flatnonzero(self._table[hashes >> np.uint64(64 - _TABLE_BITS)])
        matches = set()
        for place, value in zip(places.tolist(), hashes[places].tolist(), strict=True):
            for candidate in self._by_hash.get(value, ()):
                if text.startswith(candidate, place):
                    matches.add(candidate)
        return matches


def _hashes(text: str) -> NDArray[np.uint64]:
    """Return hashes of all windows of `WINDOW` characters, by doubling: a hash combines those of its two halves."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    hashes = (codes.astype(np.uint64) + np.uint64(1)) * _FACTOR
    width = 1
    while width < WINDOW:
        hashes ^= hashes >> np.uint64(29)
        hashes = hashes[:-width] * _FACTOR + hashes[width:]
        width *= 2
    return hashes * _FACTOR
