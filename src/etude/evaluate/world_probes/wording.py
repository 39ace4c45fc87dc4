"""Words of the stories' world, in the forms that its sentences use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

from etude.data.primer.holdout import HELD_PAIRS
from etude.data.primer.lexicon import GIRLS, NAMES, THING_BY_NOUN
from etude.data.primer.rng import Rng

Drawn = TypeVar("Drawn")


def subject(name: str) -> str:
    return "she" if name in GIRLS else "he"


def object_(name: str) -> str:
    return "her" if name in GIRLS else "him"


def capital(text: str) -> str:
    return text[0].upper() + text[1:]


def a_thing(noun: str, rng: Rng) -> str:
    """Return a noun with an adjective and article, such as "a red kite" or "an old map"."""
    look = rng.pick(THING_BY_NOUN[noun].adjectives)
    return f"{'an' if look[0] in 'aeiou' else 'a'} {look} {noun}"


HAVE_MANY = (
    "{a} has {many}.",
    "There are {many} on {a}'s table.",
    "In {a}'s bag there are {many}.",
    "{a} is holding {many}.",
)
"""A person has counted things."""


def held_with(noun: str, names: Sequence[str] = NAMES) -> list[str]:
    """Return the names that no story combines with the noun."""
    return [name for name in names if (name, noun) in HELD_PAIRS]


def taught_with(noun: str, names: Sequence[str] = NAMES) -> list[str]:
    return [name for name in names if (name, noun) not in HELD_PAIRS]


class Evenly(Generic[Drawn]):
    """Draw from a list so that nothing repeats before everything was drawn once."""

    def __init__(self, rng: Rng, items: Sequence[Drawn]) -> None:
        self._rng = rng
        self._items = list(items)
        self._left: list[Drawn] = []

    def draw(self) -> Drawn:
        if not self._left:
            self._left = self._rng.some(self._items, len(self._items))
        return self._left.pop()
