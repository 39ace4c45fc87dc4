"""The built-in conversations: document i of a seed depends on (seed, i) alone.

A conversation begins with a story in the present or the past tense and an instruction: tell it in the past, say who has
a thing, or say who is in it. If the question is who has a thing, the same follows for each other thing of the
story: a network learns to look something up from many questions on one text, and hardly from one.

One in :data:`HELD_OUT_EVERY` is held out. It has one question on a story with two things, which end with different
people. Each thing ends with a person who is in no training text with it, nor in any of ``builtin:primer``
(:mod:`etude.data.primer.holdout`), and what is done is done at a place where no story of training does it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from hashlib import blake2b
from itertools import count
from typing import Literal, get_args

from etude.data.conversations.conversation import Example, Message
from etude.data.document import Document, up_to
from etude.data.primer.holdout import HELD_PAIRS, ONE_IN, contains_held_out
from etude.data.primer.lexicon import GIRLS, NAMES, PLACES, THINGS, PlaceKind
from etude.data.primer.rng import Rng

SOURCE = "builtin:primer-instructions"
HELD_OUT_EVERY = 20
Kind = Literal["past", "who has it", "who is in it"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_WHEEL: tuple[Kind, ...] = (*KINDS, "who has it")
"""The hardest is drawn twice as often."""
_ATTEMPTS = 10_000
"""About one plan in a hundred has the combinations that a held-out story needs."""

# A verb is written in both tenses: present/past.
_STARTS = (
    "{giver} has/had {a}.",
    "{giver} is/was holding {a}.",
    "{A} lies/lay in {giver}'s lap.",
)
_PASSES = (
    "{giver} gives/gave the {noun} to {taker}.",
    "Then {giver} hands/handed the {noun} to {taker}.",
    "{taker} asks/asked for the {noun}, and {giver} gives/gave it to {him}.",
    "{taker} gets/got the {noun} from {giver}.",
)
_DEEDS = ("{name} {verb} {place}.", "Then {name} {verb} {place}.", "After that {name} {verb} {place}.")
VERBS = (
    "runs/ran", "sings/sang", "eats/ate", "writes/wrote", "draws/drew", "thinks/thought", "sleeps/slept", "sits/sat",
    "hides/hid", "wakes/woke", "drinks/drank", "reads/read", "falls/fell", "climbs/climbed", "laughs/laughed",
    "dances/danced", "walks/walked", "helps/helped", "paints/painted", "whispers/whispered",
)  # fmt: skip
_TENSES = re.compile(r"(\w+)/(\w+)")
PRESENT, PAST = 1, 2

INSTRUCTIONS: dict[Kind, tuple[str, ...]] = {
    "past": (
        "Tell it in the past: {story}",
        "Tell this story in the past: {story}",
        "{story} Tell it in the past.",
    ),
    "who has it": (
        "{story} Who has the {noun} now?",
        "{story} Who has the {noun} at the end?",
        "Who has the {noun} at the end? {story}",
    ),
    "who is in it": (
        "{story} Who is in this story?",
        "Who is in this story? {story}",
        "{story} Who is the story about?",
    ),
}


@dataclass(frozen=True, slots=True)
class Instructed:
    """A question with its answer.

    Attributes:
        held_out: whether it is kept for measures, and trained nowhere.
        further: the questions that follow, with their answers.
    """

    kind: Kind
    question: str
    answer: str
    held_out: bool
    further: tuple[tuple[str, str], ...] = ()

    @property
    def text(self) -> str:
        """The conversation as one line of JSON."""
        turns = []
        for question, answer in ((self.question, self.answer), *self.further):
            turns += [Message("user", question), Message("assistant", answer)]
        return Example("conversation", tuple(turns)).to_json()


@dataclass(frozen=True, slots=True)
class Plan:
    """What happens in a story.

    Attributes:
        sentences: with their verbs in both tenses.
        people: in the order in which they are named.
        holders: who has each thing at the end.
    """

    sentences: tuple[str, ...]
    people: tuple[str, ...]
    holders: dict[str, str]

    def in_tense(self, tense: int) -> str:
        """Return the story in :data:`PRESENT` or :data:`PAST`."""
        return _TENSES.sub(lambda verb: verb[tense], " ".join(self.sentences))


def instructed(seed: int, index: int) -> Instructed:
    """Return question ``index`` of this seed: the same bytes on any machine.

    A plan with other combinations than its part may have is dropped, and the story is planned again from a seed that
    includes the number of the attempt. Kind and numbers stay, or most stories would have few people and things.
    """
    held_out = index % HELD_OUT_EVERY == 0
    deeds = _deeds(held_out)
    drawn = Rng(f"instructions {seed} {index}")
    kind = drawn.pick(_WHEEL)
    people, things = drawn.between(2, 4), drawn.between(2, 4)
    many = kind == "who has it" and not held_out
    for attempt in range(_ATTEMPTS):
        rng = Rng(f"instructions {seed} {index} {attempt}")
        plan = _plan_of_many(rng, people, things) if many else _plan(rng, deeds)
        if _is_of_part(plan, held_out):
            return _asked(plan, kind, held_out, rng)
    raise AssertionError(f"no story for its part in {_ATTEMPTS} attempts")


def generate(seed: int, *, max_bytes: int | None = None) -> Iterator[Instructed]:
    """Yield questions 0, 1, 2 ... of a seed, without end or until the next would pass ``max_bytes`` of UTF-8."""
    return up_to(map(partial(instructed, seed), count()), max_bytes)


def documents(seed: int = 0, max_bytes: int | None = None) -> Iterator[Document]:
    """Yield the conversations as documents of the data pipeline, of an origin that names their part of the split."""
    for index, made in enumerate(generate(seed, max_bytes=max_bytes)):
        part = "validation" if made.held_out else "train"
        yield Document(text=made.text, id=f"primer-instructions-{seed}-{index}", origin=f"{SOURCE}/{part}")


def is_held_out_deed(verb: str, place: str) -> bool:
    """Return whether no story of training has this verb, in both tenses, at this place."""
    digest = blake2b(f"{verb}\x1f{place}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") % ONE_IN == 0


@cache
def _deeds(held_out: bool) -> list[tuple[str, PlaceKind]]:
    return [
        (verb, place) for verb in VERBS for place in PLACES if is_held_out_deed(verb, place.noun) == held_out
    ]


def _is_of_part(plan: Plan, held_out: bool) -> bool:
    if not held_out:
        return not contains_held_out(plan.in_tense(PRESENT))
    if len(set(plan.holders.values())) < len(plan.holders):
        return False  # or naming the person who took anything last would be right too often
    return all((name, noun) in HELD_PAIRS for noun, name in plan.holders.items())


def _plan(rng: Rng, deeds: Sequence[tuple[str, PlaceKind]]) -> Plan:
    """Draw a story: two things, two or three people, one to three passes, and perhaps another deed."""
    people = rng.some(NAMES, rng.between(2, 3))
    sentences, holders = _begun(rng, people, 2)
    passes = rng.between(1, 3)
    does = passes < 3 and rng.chance(0.5)
    for turn in rng.some(["deed"] * does + ["pass"] * passes, passes + does):
        if turn == "deed":
            verb, place = rng.pick(deeds)
            sentences.append(rng.pick(_DEEDS).format(name=rng.pick(people), verb=verb, place=place.at))
        else:
            sentences.append(_pass(rng, people, holders))
    return _planned(sentences, people, holders)


def _plan_of_many(rng: Rng, num_people: int, num_things: int) -> Plan:
    """Draw a story of that many people and things, and up to three passes; a third has none."""
    people = rng.some(NAMES, num_people)
    sentences, holders = _begun(rng, people, num_things)
    passes = 0 if rng.chance(1 / 3) else rng.between(1, 3)
    sentences += [_pass(rng, people, holders) for _ in range(passes)]
    return _planned(sentences, people, holders)


def _begun(rng: Rng, people: Sequence[str], things: int) -> tuple[list[str], dict[str, str]]:
    """Return the sentences that say who has which of some things, and the holders."""
    kinds = rng.some(THINGS, things)
    holders = {kind.noun: rng.pick(people) for kind in kinds}
    sentences = []
    for kind in kinds:
        look = rng.pick(kind.adjectives)
        a = f"{'an' if look[0] in 'aeiou' else 'a'} {look} {kind.noun}"
        sentences.append(rng.pick(_STARTS).format(giver=holders[kind.noun], a=a, A=a[0].upper() + a[1:]))
    return sentences, holders


def _pass(rng: Rng, people: Sequence[str], holders: dict[str, str]) -> str:
    """Let a thing change hands. Returns the sentence."""
    noun = rng.pick(list(holders))
    giver = holders[noun]
    taker = holders[noun] = rng.pick([name for name in people if name != giver])
    him = "her" if taker in GIRLS else "him"
    return rng.pick(_PASSES).format(giver=giver, taker=taker, noun=noun, him=him)


def _planned(sentences: Sequence[str], people: Sequence[str], holders: dict[str, str]) -> Plan:
    named = dict.fromkeys(word for word in re.findall(r"\w+", " ".join(sentences)) if word in people)
    return Plan(tuple(sentences), tuple(named), holders)


def _asked(plan: Plan, kind: Kind, held_out: bool, rng: Rng) -> Instructed:
    nouns = rng.some(sorted(plan.holders), len(plan.holders))
    tense = PRESENT if kind == "past" else rng.pick((PRESENT, PAST))
    question = rng.pick(INSTRUCTIONS[kind]).format(story=plan.in_tense(tense), noun=nouns[0])
    if kind == "past":
        return Instructed(kind, question, plan.in_tense(PAST), held_out)
    if kind == "who is in it":
        return Instructed(kind, question, f"{', '.join(plan.people[:-1])} and {plan.people[-1]}.", held_out)
    answers = {noun: f"{plan.holders[noun]} has the {noun}." for noun in nouns}
    others = [] if held_out else nouns[1:]
    further = tuple((_next_question(noun, rng), answers[noun]) for noun in others)
    return Instructed(kind, question, answers[nouns[0]], held_out, further)


def _next_question(noun: str, rng: Rng) -> str:
    """Return a question who has a thing, without the story."""
    return rng.pick(INSTRUCTIONS["who has it"]).format(story="", noun=noun).strip()
