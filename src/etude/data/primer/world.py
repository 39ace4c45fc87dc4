"""The simulated world: what is true, and the actions that change it.

Every action checks its preconditions and raises WorldError if they do not hold: a story with an impossible action is a
mistake in its plot, and must never be written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from etude.data.primer.holdout import HELD_SUMS, is_held_out, kept_held_out


class WorldError(AssertionError):
    """An action was attempted whose preconditions do not hold."""


class HeldOut(Exception):
    """The plan needs a combination that never occurs in the corpus; the document is planned again."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is true when a document ends.

    ``holdings`` maps a person to their objects with counts, ``places`` a person to their place, ``lying`` an object to
    its place, ``left`` a counted object to the result of the last count. ``sums`` are the additions and subtractions on
    the way, ``told`` who told whom that a third person has something, ``kept`` whose object lay where,
    ``name_objects`` every name and object in the text, and ``answers`` the questions in the text with their answers.
    """

    holdings: Mapping[str, Mapping[str, int]]
    places: Mapping[str, str]
    lying: Mapping[str, str]
    left: Mapping[str, int]
    sums: tuple[tuple[int, int, str], ...]
    told: tuple[tuple[str, str, str, str], ...]
    kept: tuple[tuple[str, str, str], ...]
    name_objects: frozenset[tuple[str, str]]
    answers: tuple[tuple[str, str], ...]


class World:
    """The facts of the world: who has what, what lies where, who is where; objects are nouns, people are names."""

    def __init__(self) -> None:
        self.holds: dict[str, dict[str, int]] = {}
        self.places: dict[str, str] = {}
        self.lying: dict[str, str] = {}
        self.owner: dict[str, str] = {}
        self.left: dict[str, int] = {}
        self.sums: list[tuple[int, int, str]] = []
        self.told: list[tuple[str, str, str, str]] = []
        self.kept: list[tuple[str, str, str]] = []

    def has(self, person: str, noun: str) -> int:
        return self.holds.get(person, {}).get(noun, 0)

    def move(self, person: str, place: str) -> None:
        self.places[person] = place

    def get(self, person: str, noun: str, count: int = 1) -> None:
        """Give the person more of it: made, picked, bought or brought from outside the story."""
        held = self.holds.setdefault(person, {})
        held[noun] = held.get(noun, 0) + count
        self.owner.setdefault(noun, person)

    def use_up(self, person: str, noun: str, count: int = 1) -> None:
        """Take some of it from the person: eaten, sold, planted or broken beyond use."""
        if self.has(person, noun) < count:
            raise WorldError(f"{person} has not {count} {noun}")
        held = self.holds[person]
        held[noun] -= count
        if not held[noun]:
            del held[noun]

    def give(self, giver: str, taker: str, noun: str, count: int = 1, *, lend: bool = False) -> None:
        self.use_up(giver, noun, count)
        self.get(taker, noun, count)
        if not lend:
            self.owner[noun] = taker

    def put(self, person: str, noun: str, place: str) -> None:
        """Let the person leave the object at a place, on purpose or not."""
        self.use_up(person, noun)
        self.lay(noun, place, self.owner.get(noun))

    def lay(self, noun: str, place: str, owner: str | None = None) -> None:
        """Put the object at the place; its owner matters for what is held out."""
        self.lying[noun] = place
        if owner is not None:
            if kept_held_out(owner, noun, place):
                raise HeldOut
            self.kept.append((owner, noun, place))

    def take(self, person: str, noun: str) -> None:
        """Let the person pick up an object that lies somewhere."""
        if noun not in self.lying:
            raise WorldError(f"the {noun} lies nowhere")
        del self.lying[noun]
        self.get(person, noun)

    def add(self, a: int, b: int) -> int:
        return self._sum(a, b, "+")

    def subtract(self, a: int, b: int) -> int:
        return self._sum(a, b, "-")

    def _sum(self, a: int, b: int, op: str) -> int:
        if (a, b, op) in HELD_SUMS:
            raise HeldOut
        self.sums.append((a, b, op))
        return a + b if op == "+" else a - b

    def tell(self, teller: str, listener: str, owner: str, noun: str) -> None:
        if is_held_out("told", teller, listener, owner, noun):
            raise HeldOut
        self.told.append((teller, listener, owner, noun))

    def facts(self, text_pairs: frozenset[tuple[str, str]], answers: tuple[tuple[str, str], ...]) -> Facts:
        return Facts(
            holdings={name: dict(held) for name, held in self.holds.items() if held},
            places=dict(self.places),
            lying=dict(self.lying),
            left=dict(self.left),
            sums=tuple(self.sums),
            told=tuple(self.told),
            kept=tuple(self.kept),
            name_objects=text_pairs,
            answers=answers,
        )
