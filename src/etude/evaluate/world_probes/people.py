"""Who is where after some walks, and who told whom that a third person has something."""

from __future__ import annotations

from etude.data.primer.holdout import is_held_out
from etude.data.primer.lexicon import NAMES, PLACES, THINGS, PlaceKind
from etude.data.primer.rng import Rng
from etude.evaluate.blocks import Question, block, blocks
from etude.evaluate.items import Item, Probe
from etude.evaluate.world_probes.wording import a_thing, capital, subject, taught_with

_WALKS = (
    "{who} goes {to}.",
    "Then {who} walks {to}.",
    "{who} runs {to}.",
    "After that {who} goes {to}.",
    "Later {who} is {at}.",
)
_TURNS = (3, 4, 5, 6)


def who_where(seed: int, max_items: int) -> list[Probe]:
    """Make a probe for each number of walks of two people between three places; both are asked for, and end apart."""
    return [_walk_probe(turns, seed, max_items) for turns in _TURNS]


def _walk_probe(turns: int, seed: int, max_items: int) -> Probe:
    rng = Rng(f"probe {seed} who where {turns}")

    def walks(_: int) -> list[Question]:
        while True:
            people, places = rng.some(NAMES, 2), rng.some(PLACES, 3)
            at: dict[str, PlaceKind] = {}
            sentences = []
            for turn in range(turns):
                who = people[turn] if turn < 2 else rng.pick(people)
                place = rng.pick([place for place in places if at.get(who) is not place])
                at[who] = place
                sentences.append(rng.pick(_WALKS).format(who=who, to=place.to, at=place.at))
            if at[people[0]] is not at[people[1]]:
                return [
                    (f"{' '.join(sentences)} Where is {who} now? ", capital(at[who].at)) for who in people
                ]

    return Probe(
        "who is where",
        f"{turns} walks",
        "Two people walk between three places; where is this one at the end?",
        blocks(walks, max_items),
        held_out="These walks in this order. Nothing forbids them: a search of the text shows if they occur.",
    )


_WONDERS = '"Who in the world has {a}?" {listener} wondered.\n\n'
_TELLINGS = (
    "{teller} told {listener} that {owner} had the {full}. So {listener} ran {to} to find {owner}.",
    '"{owner} has the {full}," {teller} told {listener}. "{Owner} is {at}." And {listener} was already on the way.',
)
_WHO_TOLD = "\n\nWho told {listener} about the {noun}? "


def who_told(seed: int, max_items: int) -> list[Probe]:
    """Ask for the teller rather than the owner.

    Both people take both parts. One wording names the teller first and the owner last, the other names the owner first.
    """
    rng = Rng(f"probe {seed} who told")
    items: list[Item] = []
    for number in range(max(1, max_items // (2 * len(_TELLINGS)))):
        telling = _telling(rng)
        for form in _TELLINGS:
            items += block(_both_ways(form, *telling), str(number))
    return [
        Probe(
            "who told whom",
            "",
            "One person tells another what a third has; who told it?",
            tuple(items),
            held_out="That the one tells the other that the third has this thing.",
        )
    ]


def _telling(rng: Rng) -> tuple[str, str, str, str, Rng]:
    """Draw a teller, listener, owner and thing that no story tells of, nor with teller and owner exchanged."""
    while True:
        noun = rng.pick(THINGS).noun
        teller, listener, owner = rng.some(taught_with(noun), 3)
        if is_held_out("told", teller, listener, owner, noun) and is_held_out(
            "told", owner, listener, teller, noun
        ):
            return teller, listener, owner, noun, Rng(f"{rng.random()}")


def _both_ways(form: str, teller: str, listener: str, owner: str, noun: str, rng: Rng) -> list[Question]:
    look, place = a_thing(noun, rng), rng.pick(PLACES)
    made = []
    for speaker, other in ((teller, owner), (owner, teller)):
        telling = form.format(
            teller=speaker, listener=listener, owner=other, full=look.split(" ", 1)[1], to=place.to,
            at=place.at, Owner=capital(subject(other)),
        )  # fmt: skip
        text = _WONDERS.format(a=look, listener=listener) + telling
        made.append((text + _WHO_TOLD.format(listener=listener, noun=noun), speaker))
    return made
