"""Questions for a model: several texts, one of which is right. Any model that gives text a probability can answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from etude.errors import InputError

FEWEST_ITEMS = 16
"""Fewer items in a probe would make even a chance score uninformative."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """`said` is what the model must find probable; `given` precedes it and is not scored."""

    given: str
    said: str


@dataclass(frozen=True, slots=True)
class Item:
    """Candidates, with `right` the index of the right one.

    Either the candidates share `given` (which of these continues it?) or they share `said` (after which of these does
    it come?). If candidates with one `given` differ in length, each item should have a mirror among the items, with the
    same candidates and another of them right; then no preference for some candidates can look like an ability.
    Items of one `group` (usually a document) are not independent: an interval counts groups, not items.
    Raises ValueError for fewer than two candidates or an impossible `right`.
    """

    candidates: tuple[Candidate, ...]
    right: int = 0
    group: str = ""

    def __post_init__(self) -> None:
        if len(self.candidates) < 2 or not 0 <= self.right < len(self.candidates):
            raise ValueError("an item needs two candidates or more, one of them right")
        if any(not candidate.said for candidate in self.candidates):
            raise ValueError("a candidate has an empty `said`: there is nothing to score")

    @property
    def answer(self) -> Candidate:
        return self.candidates[self.right]


def choice(given: str, right: str, *wrong: str, group: str = "") -> Item:
    """Make an item that asks which of these texts continues `given`."""
    return Item(tuple(Candidate(given, said) for said in (right, *wrong)), 0, group)


@dataclass(frozen=True)
class Probe:
    """Items that test one ability under one condition, fixed before the model is trained or examined.

    name: of the ability, such as ``state``; condition: what varies within it, such as ``moves 3`` ("" for none);
    asks: the question, in one sentence; held_out: what training could not contain, in one sentence ("" if nothing is
    claimed); open_answer: the right candidate could also be typed, so that its tokens are scored one by one and
    exactly; per_token: compare candidates by their mean log-probability per token (per byte for counting) rather than
    by their probability. If candidates differ in length and no mirrored item compensates, only this leaves a model of
    uniform logits at chance; dropped: items dropped because the training text contained them.
    """

    name: str
    condition: str
    asks: str
    items: tuple[Item, ...]
    held_out: str = ""
    open_answer: bool = False
    per_token: bool = False
    dropped: int = 0

    def __post_init__(self) -> None:
        if not self.items:
            raise InputError(f"the text yields no items for {self.title}: use more text, or omit it")

    @property
    def title(self) -> str:
        return f"{self.name}, {self.condition}" if self.condition else self.name

    @property
    def chance(self) -> float:
        """The expected score of a model that finds all candidates equally probable."""
        return sum(1 / len(item.candidates) for item in self.items) / len(self.items)

    @property
    def hash(self) -> str:
        """Hash of all questions and right answers: a result belongs to exactly these items."""
        content = json.dumps(
            [self.name, self.condition, [asdict(item) for item in self.items]], ensure_ascii=True
        )
        return hashlib.blake2b(content.encode("ascii"), digest_size=8).hexdigest()


def frozen(probes: Sequence[Probe]) -> str:
    """Return one hash of a whole suite."""
    return hashlib.blake2b(" ".join(probe.hash for probe in probes).encode(), digest_size=8).hexdigest()
