"""Refer to people, animals, things and places in the course of a story."""

from __future__ import annotations

from etude.data.primer.lexicon import CountKind, PlaceKind, ThingKind, number_word
from etude.data.primer.rng import Rng

_PRONOUNS = {
    "f": {"he": "she", "him": "her", "his": "her", "hers": "hers", "himself": "herself", "boy": "girl"},
    "m": {"he": "he", "him": "him", "his": "his", "hers": "his", "himself": "himself", "boy": "boy"},
}
LONG_AGO = -9


class Person:
    """A being with a gender: a child, a grown-up or a pet.

    A bare slot is a name or a pronoun. It is a pronoun only if this person was mentioned in this sentence or the one
    before, and no other of that gender was.
    """

    __slots__ = ("gender", "last", "name", "noun", "rivals", "streak", "words")

    def __init__(self, name: str, gender: str, noun: str = "") -> None:
        self.name = name
        self.gender = gender
        self.noun = noun
        self.rivals: list[Person] = []
        self.last = LONG_AGO
        self.streak = 0
        own = name + "'s"
        self.words = {**_PRONOUNS[gender], "n": name, "np": own, "": name, "o": name, "p": own, "kind": noun}

    def __str__(self) -> str:
        return self.name

    def refer(self, form: str, sentence: int, rng: Rng) -> str:
        recent = self.last >= sentence - 1
        first = self.last < sentence
        if form not in ("v", "boy", "kind"):
            self.last = sentence
        if form not in _PRONOUN_OF:
            return self.name if form == "v" else self.words[form]
        if recent and self.alone(sentence):
            self.streak += first
            if self.streak < 4 or not first:
                return self.words[_PRONOUN_OF[form]]
        self.streak = 0
        if self.noun and recent and rng.random() < 0.3:
            return "the " + self.noun + ("'s" if form == "p" else "")
        return self.words[form]

    def alone(self, sentence: int) -> bool:
        return all(rival.last < sentence - 1 for rival in self.rivals)


_PRONOUN_OF = {"": "he", "o": "him", "p": "his"}


class Group:
    """Several people: "Tom and Anna", or "they" when both were just mentioned."""

    __slots__ = ("last", "members", "nouns")

    def __init__(self, members: list[Person]) -> None:
        self.members = members
        self.last = LONG_AGO
        genders = {member.gender for member in members}
        self.nouns = {"f": "the girls", "m": "the boys"}.get("".join(genders), "the children")

    def refer(self, form: str, sentence: int, rng: Rng) -> str:
        recent = all(member.last >= sentence - 1 for member in self.members)
        for member in self.members:
            member.last = sentence
        if form in ("they", "them", "their"):
            return form
        if form != "n" and recent:
            if form != "" or rng.random() < 0.75:
                return {"": "they", "o": "them", "p": "their"}[form]
            return rng.pick(("the two friends", self.nouns, "the two of them"))
        names = [member.name for member in self.members]
        joined = ", ".join(names[:-1]) + " and " + names[-1]
        return joined + "'s" if form == "p" else joined


class Thing:
    """One thing with a look of its own: ``a`` "a red kite", bare "the kite" or "the red kite"."""

    __slots__ = ("adjective", "kind", "noun", "words")

    def __init__(self, kind: ThingKind, adjective: str) -> None:
        self.kind = kind
        self.noun = kind.noun
        self.adjective = adjective
        full = f"{adjective} {kind.noun}"
        self.words = {
            "a": "a " + full, "full": "the " + full, "my": full, "x": kind.noun, "adj": adjective,
            "the": "the " + kind.noun, "used": kind.used, "use": kind.use, "damage": kind.damage,
            "mended": kind.mended,
        }  # fmt: skip

    def __str__(self) -> str:
        return self.noun

    def refer(self, form: str, sentence: int, rng: Rng) -> str:
        if form:
            return self.words[form]
        return self.words["full" if rng.random() < 0.25 else "the"]


class Place:
    """``at`` "in the barn", ``to`` "to the barn", bare "the barn", ``detail`` something seen there."""

    __slots__ = ("kind", "noun", "told", "words")

    def __init__(self, kind: PlaceKind) -> None:
        self.kind = kind
        self.noun = kind.noun
        self.told = False
        self.words = {"": "the " + kind.noun, "at": kind.at, "to": kind.to, "x": kind.noun}

    def __str__(self) -> str:
        return self.noun

    def refer(self, form: str, sentence: int, rng: Rng) -> str:
        return rng.pick(self.kind.details) if form == "detail" else self.words[form]


def amount(count: int, kind: CountKind, adjective: str = "") -> str:
    """Write a counted noun: "five apples", "one apple", "no apples"."""
    look = adjective + " " if adjective else ""
    number = "no" if count == 0 else number_word(count)
    return f"{number} {look}{kind.noun if count == 1 else kind.plural}"
