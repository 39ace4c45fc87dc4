"""Made-up people: facts are stated about all of them, but questions are asked about only some.

Each statement of a fact begins with the person's name. Each question is withheld for one fifth of the people; asking it
about them tests whether a fact can be retrieved in a form in which it never appeared. The reversed question, from the
house to its owner, also inverts the order of the statement.
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
        """Return the answer to a question of this kind."""
        return {"town": self.town, "trade": self.trade, "house": self.house, "reversed": self.name}[question]


def _all_people() -> tuple[Person, ...]:
    """Make the people, the same on every machine and for every seed, so that a probe of any seed may ask about them."""
    rng = Rng("the people of the task mixture")
    names = [f"{first} {last}" for first in _FIRST for last in _LAST]
    houses = rng.some([f"{look} {part}" for look in _LOOKS for part in _PARTS], len(names))
    return tuple(
        Person(name, rng.pick(TOWNS), rng.pick(TRADES), house)
        for name, house in zip(names, houses, strict=True)
    )


PEOPLE = _all_people()
_FIRST_STATEMENTS = {
    "town": ("{name} was born in {value}.", "{name} comes from {value}.", "{name} grew up in {value}."),
    "trade": ("{name} is a {value} by trade.", "{name} works as a {value}.", "{name} earns a living as a {value}."),
}  # fmt: skip
_LAST_STATEMENTS = (
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
"""The question, and the attribute of the person that is inserted in it."""


def question_key(question: str, person: Person) -> Key:
    return ("person", question, person.name)


def question_about(question: str, person: Person) -> Problem:
    """Return a question about a person, with its answer."""
    form, by = QUESTIONS[question]
    answer = "A " + person.trade if question == "trade" else person.value(question)
    return Problem(question_key(question, person), form.format(getattr(person, by)), answer)


def biography(rng: Rng, person: Person) -> str:
    """State the facts of a person on one line. The house comes last: the name never follows it."""
    statements = [
        rng.pick(forms).format(name=person.name, value=person.value(fact))
        for fact, forms in rng.some(list(_FIRST_STATEMENTS.items()), 2)
    ]
    statements.append(rng.pick(_LAST_STATEMENTS).format(name=person.name, value=person.house))
    return " ".join(statements)


def any_question(rng: Rng) -> Problem:
    while True:
        problem = question_about(rng.pick(tuple(QUESTIONS)), rng.pick(PEOPLE))
        if not is_held_out(problem.key):
            return problem
