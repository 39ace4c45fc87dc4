"""Who has what: two people pass two things between each other, and the owner of each is asked for."""

from __future__ import annotations

from itertools import combinations

from etude.data.primer.lexicon import THINGS
from etude.data.primer.rng import Rng
from etude.evaluate.blocks import Question, blocks
from etude.evaluate.items import Probe
from etude.evaluate.world_probes.wording import Evenly, a_thing, capital, held_with, object_

_MOVES = range(1, 6)
_STARTS = ("{giver} has {a}.", "{giver} is holding {a}.", "{A} lies in {giver}'s lap.")
_PASSES = (
    "{giver} gives the {noun} to {taker}.",
    "Then {giver} hands the {noun} to {taker}.",
    "{taker} asks for the {noun}, and {giver} gives it to {him}.",
    "{taker} gets the {noun} from {giver}.",
)
Cast = tuple[str, str, str, str]
"""Two names and two nouns."""


def casts() -> list[Cast]:
    """Return all pairs of people and things such that no story combines either person with either thing."""
    combined = []
    for first, second in combinations([kind.noun for kind in THINGS], 2):
        names = [name for name in held_with(first) if name in held_with(second)]
        combined += [(*pair, first, second) for pair in combinations(names, 2)]
    return combined


def who_has(seed: int, max_items: int) -> list[Probe]:
    """Make a probe for each number of moves.

    The two things end with different people, so both names are right answers to a story's two questions: no name,
    neither the first nor the last, is right more often. For each number of moves, the first owner still has the thing
    in half of the questions.
    """
    return [_probe(moves, seed, max_items) for moves in _MOVES]


def _probe(moves: int, seed: int, max_items: int) -> Probe:
    rng = Rng(f"probe {seed} who has {moves}")
    available = Evenly(rng, casts())
    return Probe(
        "who has what",
        f"{moves} move{'s' if moves > 1 else ''}",
        "Two people pass two things to each other; who has this one at the end?",
        blocks(lambda number: _story(rng, available.draw(), moves, odd=number % 2 == 1), max_items),
        held_out="Neither of the two names stands in any story with either of the two things.",
    )


def _story(rng: Rng, cast: Cast, moves: int, *, odd: bool) -> list[Question]:
    """Make a story and its two questions.

    `odd`: if the number of moves is even, each thing moves an odd number of times (and changes hands), otherwise each
    moves an even number of times (and comes back).
    """
    *people, first, second = cast
    people = rng.some(people, 2)
    things = rng.some((first, second), 2)
    if moves % 2:  # one of the two changes hands in the end, so both begin with the same person
        first_moves = rng.between(0, moves)
        holder = dict.fromkeys(things, people[0])
    else:
        first_moves = 2 * rng.between(0, moves // 2 - 1) + 1 if odd else 2 * rng.between(0, moves // 2)
        holder = dict(zip(things, people, strict=True))
    sentences = []
    for thing in rng.some(things, 2):
        look = a_thing(thing, rng)
        sentences.append(rng.pick(_STARTS).format(giver=holder[thing], a=look, A=capital(look)))
    order = [things[0]] * first_moves + [things[1]] * (moves - first_moves)
    for thing in rng.some(order, moves):
        giver = holder[thing]
        taker = people[1 - people.index(giver)]
        sentences.append(rng.pick(_PASSES).format(giver=giver, taker=taker, noun=thing, him=object_(taker)))
        holder[thing] = taker
    story = " ".join(sentences)
    return [(f"{story} Who has the {thing} now? ", holder[thing]) for thing in things]
