"""Made-up people: everybody's facts are told, but not everybody is asked about.

Each fact is told in statements that begin with the person. Each question is never put about one fifth of the people:
there it asks whether a fact can be got out in a form in which it was never told. The reversed question, from the
house to who lives in it, turns the order of the statement round.
"""

from __future__ import annotations

from dataclasses import dataclass

from etude.data.primer.rng import Rng
from etude.data.tasks.problem import Key, Problem, is_held_out

_FIRST = (
    "Orlan", "Bettiva", "Carsk", "Dunmira", "Evrik", "Falmo", "Gwendra", "Hestor", "Imbry", "Jolvan", "Kessa", "Lorvik",
    "Mirelda", "Nastor", "Ottiva", "Prenn",
)  # fmt: skip
_LAST = (
    "Tavvish", "Quillam", "Brandel", "Mossery", "Fennock", "Drumlin", "Vardy", "Hollsen", "Peverin", "Zabrik",
    "Castrel", "Ingwood", "Jarrick", "Lunnet", "Rosker",
)  # fmt: skip
TOWNS = ("Marlow Ford", "Eskerby", "Tolvane", "Quenby", "Little Harsk", "Dornmouth", "Velling", "Upper Syme")
TRADES = ("weaver", "glazier", "surveyor", "printer", "locksmith", "brewer", "tanner", "roofer")
_LOOKS = (
    "Grey", "Long", "Broken", "High", "Silent", "Crooked", "Amber", "Winter", "Hollow", "Iron", "Seven", "Lower",
    "Golden", "Narrow", "Western", "Old",
)  # fmt: skip
_PARTS = (
    "Gate", "Chimney", "Elms", "Steps", "Acre", "Window", "Corner", "Arches", "Wells", "Court", "Ridge", "Lodge",
    "Beams", "Terrace", "Hearth",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Person:
    name: str
    town: str
    trade: str
    house: str

    def value(self, question: str) -> str:
        """The answer to a question of this kind."""
        return {"town": self.town, "trade": self.trade, "house": self.house, "reversed": self.name}[question]


def _everybody() -> tuple[Person, ...]:
    """The same on every machine and for every seed: what a training teaches, a probe of any seed may ask."""
    rng = Rng("the people of the task mixture")
    names = [f"{first} {last}" for first in _FIRST for last in _LAST]
    houses = rng.some([f"{look} {part}" for look in _LOOKS for part in _PARTS], len(names))
    return tuple(
        Person(name, rng.pick(TOWNS), rng.pick(TRADES), house)
        for name, house in zip(names, houses, strict=True)
    )


PEOPLE = _everybody()
_TOLD_FIRST = {
    "town": ("{name} was born in {value}.", "{name} comes from {value}.", "{name} grew up in {value}."),
    "trade": ("{name} is a {value} by trade.", "{name} works as a {value}.", "{name} earns a living as a {value}."),
}  # fmt: skip
_TOLD_LAST = (
    "{name} lives in a house called {value}.",
    "{name} owns the house {value}.",
    "{name} can be found at {value}.",
)
QUESTIONS = {
    "town": ("Where was {} born? ", "name"),
    "trade": ("What does {} do for a living? ", "name"),
    "house": ("What is the house of {} called? ", "name"),
    "reversed": ("Who lives in the house {} today? ", "house"),
}
"""The question, and what of the person stands in it."""


def question_key(question: str, person: Person) -> Key:
    return ("person", question, person.name)


def asked(question: str, person: Person) -> Problem:
    form, by = QUESTIONS[question]
    said = "A " + person.trade if question == "trade" else person.value(question)
    return Problem(question_key(question, person), form.format(getattr(person, by)), said)


def biography(rng: Rng, person: Person) -> str:
    """The facts of a person on one line. The house comes last: the name never follows it."""
    told = [
        rng.pick(forms).format(name=person.name, value=person.value(fact))
        for fact, forms in rng.some(list(_TOLD_FIRST.items()), 2)
    ]
    told.append(rng.pick(_TOLD_LAST).format(name=person.name, value=person.house))
    return " ".join(told)


def any_question(rng: Rng) -> Problem:
    while True:
        problem = asked(rng.pick(tuple(QUESTIONS)), rng.pick(PEOPLE))
        if not is_held_out(problem.key):
            return problem
