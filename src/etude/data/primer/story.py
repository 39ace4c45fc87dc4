"""A story in the making: its cast, its world, its paragraphs, and the questions that it can answer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from etude.data.primer.entities import Group, Person, Place, Thing
from etude.data.primer.grammar import Lines, Voice, finish
from etude.data.primer.holdout import HELD_PAIRS, HELD_SUMS, kept_held_out
from etude.data.primer.lexicon import (
    BOYS,
    COUNTS,
    GIRLS,
    PET_NAMES,
    PETS,
    PLACE_BY_NOUN,
    PLACES,
    THING_BY_NOUN,
    THINGS,
    CountKind,
    ThingKind,
)
from etude.data.primer.rng import Rng
from etude.data.primer.world import HeldOut, World


class Story(Voice):
    """Plots cast people and things under short keys ("a", "b", "t", "x"), then change the world and write text."""

    def __init__(self, rng: Rng) -> None:
        super().__init__(rng)
        self.world = World()
        self.env: dict[str, Any] = {}
        self.children: list[Person] = []
        self.people: list[Person] = []
        self.paragraphs: list[str] = []
        self.line: list[str] = []
        self.questions: list[tuple[str, str]] = []
        self.notes: list[tuple[str, str]] = []
        self.asks = rng.chance(0.3)
        self.season = ""
        self.nouns: set[str] = set()
        self.place_nouns: set[str] = set()

    # --- telling ---------------------------------------------------------------------------------------

    def say(self, lines: Lines, **extra: Any) -> None:
        """Add one rendering of the lines to the current paragraph."""
        if self.line:
            self.line.append(" ")
        self.tell(lines, {**self.env, **extra} if extra else self.env, self.line)

    def maybe(self, probability: float, lines: Lines, **extra: Any) -> None:
        if self.rng.random() < probability:
            self.say(lines, **extra)

    def para(self) -> None:
        """Start a new paragraph, in which names are used again before pronouns."""
        if self.line:
            self.paragraphs.append(finish("".join(self.line)))
            self.line = []
            self.sentence += 2

    def text(self) -> str:
        self.para()
        return "\n\n".join(self.paragraphs)

    def phrase(self, lines: Lines, **extra: Any) -> str:
        """Render separately, leaving the state of the discourse unchanged."""
        sentence, marks = self.sentence, [(person, person.last, person.streak) for person in self.people]
        out: list[str] = []
        self.sentence += 9
        self.tell(lines, {**self.env, **extra}, out)
        self.sentence = sentence
        for person, last, streak in marks:
            person.last, person.streak = last, streak
        return finish("".join(out))

    def ask(self, question: Lines, answer: Lines, **extra: Any) -> None:
        """Record a question about what has just happened, with its answer."""
        if self.asks:
            self.questions.append((self.phrase(question, **extra), self.phrase(answer, **extra)))

    def note(self, person: Person, deed: str) -> None:
        """Record a deed ("lost the kite") for questions about who did what, and in which order."""
        self.notes.append((person.name, deed))

    # --- casting ---------------------------------------------------------------------------------------

    def cast(self, key: str, person: Person) -> Person:
        for other in self.people:
            if other.gender == person.gender:
                other.rivals.append(person)
                person.rivals.append(other)
        self.people.append(person)
        self.env[key] = person
        return person

    def _known(self, key: str) -> Person | None:
        return next((person for person in self.people if person is self.env.get(key)), None)

    def child(self, key: str, gender: str = "") -> Person:
        if key != "c" and (known := self._known(key)):
            return known
        taken = {person.name for person in self.people}
        gender = gender or ("f" if self.rng.random() < 0.5 else "m")
        names = GIRLS if gender == "f" else BOYS
        name = self.rng.pick(names)
        while name in taken or any((name, noun) in HELD_PAIRS for noun in self.nouns):
            name = self.rng.pick(names)
        person = self.cast(key, Person(name, gender))
        self.children.append(person)
        return person

    def pair(self) -> tuple[Person, Person]:
        """Cast two children "a" and "b", usually a girl and a boy, and both of them as "both"."""
        if "both" in self.env:
            return self.env["a"], self.env["b"]
        a = self.child("a")
        other = "m" if a.gender == "f" else "f"
        b = self.child("b", other if self.rng.chance(0.7) else a.gender)
        self.env["both"] = Group([a, b])
        return a, b

    def elder(self, key: str, only: str = "") -> Person:
        if known := self._known(key):
            return known
        name = only or self.rng.pick(("Mum", "Dad", "Grandma", "Grandpa"))
        return self.cast(key, Person(name, "f" if name in ("Mum", "Grandma") else "m"))

    def neighbour(self, key: str) -> Person:
        taken = {person.name for person in self.people}
        name, gender = self.rng.pick([entry for entry in NEIGHBOURS if entry[0] not in taken])
        return self.cast(key, Person(name, gender))

    def pet(self, key: str, nouns: tuple[str, ...] = ()) -> Person:
        if known := self._known(key):
            return known
        kind = self.rng.pick([kind for kind in PETS if not nouns or kind.noun in nouns])
        person = Person(self.rng.pick(PET_NAMES), "f" if self.rng.chance(0.5) else "m", kind.noun)
        person.words |= {"noise": kind.noise, "treat": kind.treat, "move": _own(kind.move, person)}
        return self.cast(key, person)

    # --- choosing what may be told ----------------------------------------------------------------------

    def allowed(self, noun: str) -> bool:
        return noun not in self.nouns and all((child.name, noun) not in HELD_PAIRS for child in self.children)

    def thing(self, key: str, nouns: Iterable[str] = ()) -> Thing:
        """Choose a thing that may occur with everyone in the cast, and that the story does not have yet."""
        kinds = [THING_BY_NOUN[noun] for noun in nouns] if nouns else THINGS
        kind: ThingKind = self._pick(kinds)
        thing = Thing(kind, self.rng.pick(kind.adjectives))
        self.env[key] = thing
        return thing

    def count_kind(self, sources: tuple[str, ...] = ()) -> CountKind:
        kind: CountKind = self._pick([kind for kind in COUNTS if not sources or kind.source in sources])
        return kind

    def _pick(self, kinds: Any) -> Any:
        for _ in range(12):
            kind = self.rng.pick(kinds)
            if self.allowed(kind.noun):
                self.nouns.add(kind.noun)
                return kind
        raise HeldOut

    def place(self, key: str, nouns: tuple[str, ...] = ()) -> Place:
        """Choose a place not yet in the story, where everything cast so far may lie."""
        for _ in range(16):
            kind = PLACE_BY_NOUN[self.rng.pick(nouns)] if nouns else self.rng.pick(PLACES)
            noun = kind.noun
            if noun in self.place_nouns or any(self._clash(held, noun) for held in self.nouns):
                continue
            self.place_nouns.add(noun)
            place = self.env[key] = Place(kind)
            return place
        raise HeldOut

    def _clash(self, noun: str, place: str) -> bool:
        return any(kept_held_out(child.name, noun, place) for child in self.children)

    def addends(self, low: int, high: int, more_low: int, more_high: int) -> tuple[int, int]:
        """Choose two numbers whose sum may occur."""
        for _ in range(20):
            a, b = self.rng.between(low, high), self.rng.between(more_low, more_high)
            if (a, b, "+") not in HELD_SUMS:
                return a, b
        raise HeldOut

    def part_of(self, whole: int, low: int, high: int) -> int:
        """Choose a part that may be taken away."""
        for _ in range(20):
            part = self.rng.between(low, min(high, whole))
            if (whole, part, "-") not in HELD_SUMS:
                return part
        raise HeldOut


NEIGHBOURS = (
    ("Mrs Lamb", "f"), ("Mr Reed", "m"), ("Mrs Winter", "f"), ("Mr Finch", "m"), ("Miss Rose", "f"),
    ("Captain Moss", "m"), ("Mrs Potter", "f"), ("Mr Brook", "m"), ("Aunt Flora", "f"), ("Uncle Ned", "m"),
)  # fmt: skip


def _own(move: str, pet: Person) -> str:
    return move.replace("its", pet.words["his"])
