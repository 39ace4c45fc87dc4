"""Find the longest run of a text that occurs verbatim in the training text.

A suffix automaton of the texts (Blumer et al. 1985) reads the training bytes once and records, in each of its states,
the longest run that occurred there. Memory is bounded by the texts, however long the training text is; time is linear
in both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from etude.evaluate.statistics import Estimate, mean


@dataclass(frozen=True)
class Run:
    """Bytes [start, end) of a text: the first of its longest runs that occur in training."""

    start: int
    end: int

    @property
    def length(self) -> int:
        return self.end - self.start

    def of(self, text: str) -> str:
        """Return the run as text; a character cut at either end becomes a replacement character."""
        return text.encode()[self.start : self.end].decode(errors="replace")


@dataclass(frozen=True)
class Memorisation:
    """Samples of a model beside held-out passages of equal length, which were not copied.

    excess: mean difference between each sample's longest run and its passage's, in bytes, above zero if the model
    copies; beyond: share of samples with a longer run than every passage.
    """

    samples: tuple[Run, ...]
    held_out: tuple[Run, ...]
    excess: Estimate
    beyond: float


def memorisation(train: Iterable[bytes], samples: Sequence[str], held_out: Sequence[str]) -> Memorisation:
    """Search for both in one pass over `train`.

    Samples are generated text, without their prompts. Sample i is compared with passage i, both cut to the bytes of the
    shorter one, since a longer text has longer runs by chance.
    Raises ValueError if there are no samples, or not as many passages.
    """
    if not samples or len(samples) != len(held_out):
        raise ValueError("each sample needs a held-out passage to be compared with")
    pairs = [(a.encode(), b.encode()) for a, b in zip(samples, held_out, strict=True)]
    cut = [text[: min(map(len, pair))] for pair in pairs for text in pair]
    runs = longest_runs(train, cut)
    mine, theirs = tuple(runs[::2]), tuple(runs[1::2])
    chance = max(run.length for run in theirs)
    return Memorisation(
        mine,
        theirs,
        mean([a.length - b.length for a, b in zip(mine, theirs, strict=True)]),
        sum(run.length > chance for run in mine) / len(mine),
    )


def longest_runs(train: Iterable[bytes], texts: Sequence[bytes]) -> list[Run]:
    """Return the longest run of each text within one document of `train`."""
    automaton = _SuffixAutomaton(texts)
    for document in train:
        automaton.meet(document)
    automaton.settle()
    return [automaton.longest(text) for text in texts]


class _SuffixAutomaton:
    """The suffix automaton of several texts: its states are sets of substrings that end at the same places in them.

    length: of a state's longest substring; link: the state of its longest suffix that belongs to another state; met:
    the longest substring of a state that occurred, 0 for none.
    """

    def __init__(self, texts: Iterable[bytes]) -> None:
        self.edges: list[dict[int, int]] = [{}]
        self.length = [0]
        self.link = [-1]
        for text in texts:
            last = 0
            for symbol in text:
                last = self._extended(last, symbol)
        self.met = [0] * len(self.edges)

    def _extended(self, last: int, symbol: int) -> int:
        """Return the state of the text read so far with one more symbol."""
        known = self.edges[last].get(symbol)
        if known is not None:
            if self.length[known] == self.length[last] + 1:
                return known
            return self._split(last, symbol, known)
        state = self._new(self.length[last] + 1, {})
        at = last
        while at >= 0 and symbol not in self.edges[at]:
            self.edges[at][symbol] = state
            at = self.link[at]
        if at < 0:
            self.link[state] = 0
        else:
            next_state = self.edges[at][symbol]
            fits = self.length[next_state] == self.length[at] + 1
            self.link[state] = next_state if fits else self._split(at, symbol, next_state)
        return state

    def _split(self, at: int, symbol: int, state: int) -> int:
        """Give the shorter substrings of `state` a state of their own."""
        clone = self._new(self.length[at] + 1, dict(self.edges[state]))
        self.link[clone] = self.link[state]
        self.link[state] = clone
        while at >= 0 and self.edges[at].get(symbol) == state:
            self.edges[at][symbol] = clone
            at = self.link[at]
        return clone

    def _new(self, length: int, edges: dict[int, int]) -> int:
        self.edges.append(edges)
        self.length.append(length)
        self.link.append(0)
        return len(self.edges) - 1

    def meet(self, document: bytes) -> None:
        """Follow the longest substring that ends at each byte, and record it."""
        edges, length, link, met = self.edges, self.length, self.link, self.met
        state = run = 0
        for symbol in document:
            following = edges[state].get(symbol)
            if following is None:
                while state > 0 and symbol not in edges[state]:
                    state = link[state]
                run = length[state]
                following = edges[state].get(symbol)
                if following is None:
                    continue
            state = following
            run += 1
            if run > met[state]:
                met[state] = run

    def settle(self) -> None:
        """Propagate: all suffixes of a substring that occurred have occurred; a state keeps the longest of those."""
        by_length = sorted(range(1, len(self.edges)), key=self.length.__getitem__)
        for state in reversed(by_length):
            if self.met[state]:
                self.met[self.link[state]] = self.length[self.link[state]]
        for state in by_length:
            self.met[state] = self.met[state] or self.met[self.link[state]]

    def longest(self, text: bytes) -> Run:
        """Return the longest run (after `settle`). Each prefix of `text` ends in the state of its longest suffix."""
        best, state = Run(0, 0), 0
        for end, symbol in enumerate(text, start=1):
            state = self.edges[state][symbol]
            if self.met[state] > best.length:
                best = Run(end - self.met[state], end)
        return best
