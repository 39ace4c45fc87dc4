"""A question put to a model: some texts, of which one is right. Any model that gives text a probability can answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from etude.errors import InputError

FEWEST_ITEMS = 16
"""A probe of fewer says nothing: chance itself would lie anywhere."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """`said` is what the model must find probable, `given` what stands before it and is not scored."""

    given: str
    said: str


@dataclass(frozen=True, slots=True)
class Item:
    """Candidates of which `right` is the index of the right one.

    Either the candidates share `given` (which of these goes on?) or they share `said` (after which of these does it
    come?). Where candidates of one `given` differ in length, each item should have a mirror among the items, with the
    same candidates and another of them right: then no preference for some candidates can look like an ability.
    Items of one `group` (as a rule a document) are not independent: an interval counts groups, not items.
    Raises ValueError for fewer than two candidates or an impossible `right`.
    """

    candidates: tuple[Candidate, ...]
    right: int = 0
    group: str = ""

    def __post_init__(self) -> None:
        if len(self.candidates) < 2 or not 0 <= self.right < len(self.candidates):
            raise ValueError("an item needs two candidates or more, one of them right")
        if any(not candidate.said for candidate in self.candidates):
            raise ValueError("a candidate says nothing: there is nothing to score")

    @property
    def answer(self) -> Candidate:
        return self.candidates[self.right]


def choice(given: str, right: str, *wrong: str, group: str = "") -> Item:
    """Which of these goes on after `given`?"""
    return Item(tuple(Candidate(given, said) for said in (right, *wrong)), 0, group)


@dataclass(frozen=True)
class Probe:
    """Items that ask for one ability under one condition, fixed before the model is trained or looked at.

    name: of the ability, such as ``state``; condition: what varies within it, such as ``moves 3`` ("" for none);
    asks: what is asked, in one sentence; held_out: what training could not contain, in one sentence ("" where nothing
    is claimed); open_answer: the right candidate is an answer that could also be typed, so that its tokens are scored
    one by one and exactly; per_token: candidates are compared by their mean log-probability a token (a byte for
    counting) rather than by their probability: where they differ in length and no mirrored item makes up for it, that
    is what leaves a model of uniform logits at chance; dropped: items that were left out because the training text
    contained them.
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
            raise InputError(f"the text yields no items for {self.title}: use more text, or leave it out")

    @property
    def title(self) -> str:
        return f"{self.name}, {self.condition}" if self.condition else self.name

    @property
    def chance(self) -> float:
        """The score of a model that finds all candidates equally probable."""
        return sum(1 / len(item.candidates) for item in self.items) / len(self.items)

    @property
    def hash(self) -> str:
        """Of all that is asked and of the right answers: a result belongs to these very items."""
        asked = json.dumps(
            [self.name, self.condition, [asdict(item) for item in self.items]], ensure_ascii=True
        )
        return hashlib.blake2b(asked.encode("ascii"), digest_size=8).hexdigest()


def frozen(probes: Sequence[Probe]) -> str:
    """One hash of a whole suite."""
    return hashlib.blake2b(" ".join(probe.hash for probe in probes).encode(), digest_size=8).hexdigest()
