"""What the training text holds of what a probe wants to ask: found in one pass, in memory that it cannot grow."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from etude.evaluate.text_probes.passages import word_pattern

WINDOW = 16
"""Texts are looked for by a hash of their first characters; none may be shorter."""

PIECE_CHARS = 2**20
"""Training text that is looked at at a time: about 30 MB with its hashes."""

NUM_WORDS = 13
"""Brown et al. 2020 call an item known when the training text has 13 of its words in a row."""

_TABLE_BITS = 22
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Training:
    """counts: how often each word asked about occurs, in whatever case; found: the stretches that stand in it verbatim;
    num_chars: of the whole text."""

    counts: Mapping[str, int]
    found: frozenset[str]
    num_chars: int


def stretches(text: str) -> tuple[str, ...]:
    """What must not stand in the training text: every 13 words in a row, or all of a shorter text."""
    words = list(word_pattern().finditer(text))
    if len(words) <= NUM_WORDS:
        return (text,)
    pairs = zip(words, words[NUM_WORDS - 1 :], strict=False)
    found = [text[first.start() : last.end()] for first, last in pairs]
    return tuple(one for one in found if len(one) >= WINDOW) or (text,)


def search(documents: Iterable[str], words: frozenset[str], wanted: frozenset[str]) -> Training:
    """Count `words` (case-folded) and find which of `wanted` stand in `documents`, each document by itself.

    Exact: what a hash finds is compared. Memory is bounded by what is asked, one document and one piece of it.
    Raises ValueError where a wanted text is shorter than `WINDOW`.
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
    """Short documents together: a zero character, which no wanted text holds, stands between them."""
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
    """Cut at spaces where there are any, so that no word is cut."""
    start = 0
    while start < len(text):
        end = min(start + PIECE_CHARS, len(text))
        if end < len(text):
            space = max(text.rfind(space, max(start, end - 1000), end) for space in " \n\0")
            end = space if space > start else end
        yield start, end
        start = end


class _Lookup:
    """Which of some texts stand in a text: windows that hash like the beginning of one are compared with it."""

    def __init__(self, wanted: frozenset[str]) -> None:
        if any(len(one) < WINDOW or "\0" in one for one in wanted):
            raise ValueError(f"a text to look for has at least {WINDOW} characters, and no zero character")
        self.longest = max(map(len, wanted), default=0)
        self._table = np.zeros(2**_TABLE_BITS, bool)
        self._by_hash: dict[int, list[str]] = defaultdict(list)
        for one in wanted:
            self._by_hash[int(_hashes(one[:WINDOW])[0])].append(one)
        for value in self._by_hash:
            self._table[value >> (64 - _TABLE_BITS)] = True

    def found(self, text: str) -> set[str]:
        if not self._by_hash or len(text) < WINDOW:
            return set()
        hashes = _hashes(text)
        places = np.flatnonzero(self._table[hashes >> np.uint64(64 - _TABLE_BITS)])
        found = set()
        for place, value in zip(places.tolist(), hashes[places].tolist(), strict=True):
            for one in self._by_hash.get(value, ()):
                if text.startswith(one, place):
                    found.add(one)
        return found


def _hashes(text: str) -> NDArray[np.uint64]:
    """Of every window of `WINDOW` characters, by doubling: the hash of two halves is made of theirs."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    hashes = (codes.astype(np.uint64) + np.uint64(1)) * _FACTOR
    width = 1
    while width < WINDOW:
        hashes ^= hashes >> np.uint64(29)
        hashes = hashes[:-width] * _FACTOR + hashes[width:]
        width *= 2
    return hashes * _FACTOR
