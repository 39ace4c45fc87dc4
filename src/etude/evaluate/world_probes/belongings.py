"""Who has what: two things go from hand to hand between two people, and both are asked for."""

from __future__ import annotations

from itertools import combinations

from etude.data.primer.lexicon import THINGS
from etude.data.primer.rng import Rng
from etude.evaluate.blocks import Asked, blocks
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
    """All pairs of people and things of whom no story has any of the people with any of the things."""
    found = []
    for one, other in combinations([kind.noun for kind in THINGS], 2):
        names = [name for name in held_with(one) if name in held_with(other)]
        found += [(*pair, one, other) for pair in combinations(names, 2)]
    return found


def who_has(seed: int, max_items: int) -> list[Probe]:
    """By the number of moves. The two things end in different hands, so a story asked for both has both names as
    right answers: no name, no first or last one, is right more often. Who a thing began with still has it in half
    of the questions, of each number of moves."""
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


def _story(rng: Rng, cast: Cast, moves: int, *, odd: bool) -> list[Asked]:
    """A story and its two questions. `odd`: where the moves are even in number, each thing moves an odd number of
    times (and changes hands), otherwise each an even number (and comes back)."""
    *people, first, second = cast
    people = rng.some(people, 2)
    things = rng.some((first, second), 2)
    if moves % 2:  # one of the two changes hands in the end, so both begin in the same
        first_moves = rng.between(0, moves)
        holder = dict.fromkeys(things, people[0])
    else:
        first_moves = 2 * rng.between(0, moves // 2 - 1) + 1 if odd else 2 * rng.between(0, moves // 2)
        holder = dict(zip(things, people, strict=True))
    told = []
    for thing in rng.some(things, 2):
        look = a_thing(thing, rng)
        told.append(rng.pick(_STARTS).format(giver=holder[thing], a=look, A=capital(look)))
    order = [things[0]] * first_moves + [things[1]] * (moves - first_moves)
    for thing in rng.some(order, moves):
        giver = holder[thing]
        taker = people[1 - people.index(giver)]
        told.append(rng.pick(_PASSES).format(giver=giver, taker=taker, noun=thing, him=object_(taker)))
        holder[thing] = taker
    story = " ".join(told)
    return [(f"{story} Who has the {thing} now? ", holder[thing]) for thing in things]
