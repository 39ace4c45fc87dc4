"""Values of keys, ends of paths, a shift from examples: with lists, paths and pairs that were never shown."""

from __future__ import annotations

from etude.data.primer.rng import Rng
from etude.data.tasks import lookups
from etude.data.tasks.problem import is_held_out
from etude.data.tasks.strings import LETTERS
from etude.evaluate.blocks import Question, blocks
from etude.evaluate.items import Probe

_PAIRS = (2, 4, 6, 8)
_SHOTS = (1, 2, 4, 8)
_SHIFTS_COMPARED = 4


def lookup_probes(seed: int, max_items: int) -> list[Probe]:
    return [
        *(_recall(count, seed, max_items) for count in _PAIRS),
        *(_hops(hops, seed, max_items) for hops in range(1, lookups.MOST_HOPS + 1)),
        *(_cipher(shots, seed, max_items) for shots in _SHOTS),
    ]


def _recall(count: int, seed: int, max_items: int) -> Probe:
    rng = Rng(f"probe {seed} recall {count}")

    def every_key(_: int) -> list[Question]:
        while True:
            pairs = lookups.drawn_pairs(rng, count)
            if is_held_out(lookups.pairs_key(pairs)):
                problems = [lookups.recall(pairs, queried) for queried in range(count)]
                return [(problem.text, problem.answer) for problem in problems]

    return Probe(
        "key-value recall",
        f"{count} pairs",
        "Which of the values in the list belongs to this key?",
        blocks(every_key, max_items),
        held_out="These pairs together, in any order.",
        open_answer=True,
    )


def _hops(hops: int, seed: int, max_items: int) -> Probe:
    rng = Rng(f"probe {seed} hops {hops}")

    def every_start(_: int) -> list[Question]:
        while True:
            ring, edges = lookups.drawn_ring(rng)
            if is_held_out(lookups.chain_key(edges)):
                problems = [lookups.hop(ring, edges, start, hops) for start in range(len(ring))]
                return [(problem.text, problem.answer) for problem in problems]

    return Probe(
        "hops",
        f"{hops} hop{'s' if hops > 1 else ''}",
        "Where does a path lead after this many steps along the arrows, which are listed in any order?",
        blocks(every_start, max_items),
        held_out="These steps together, in any order, with any question.",
        open_answer=True,
    )


def _cipher(shots: int, seed: int, max_items: int) -> Probe:
    rng = Rng(f"probe {seed} cipher {shots}")
    held = {
        letter: [shift for shift in range(1, len(LETTERS)) if is_held_out(lookups.cipher_key(shift, letter))]
        for letter in LETTERS
    }
    letters = [letter for letter, shifts in held.items() if len(shifts) >= _SHIFTS_COMPARED]

    def shifts_of_a_letter(_: int) -> list[Question]:
        letter = rng.pick(letters)
        made = []
        for shift in rng.some(held[letter], _SHIFTS_COMPARED):
            shown = rng.some(lookups.shown_letters(shift), shots)
            problem = lookups.cipher(shift, shown, letter)
            made.append((problem.text, problem.answer))
        return made

    return Probe(
        "few-shot cipher",
        f"{shots} shot{'s' if shots > 1 else ''}",
        "What does this letter become by the rule of the examples? No answer was ever shown for the letter.",
        blocks(shifts_of_a_letter, max_items),
        held_out="This letter with this image.",
        open_answer=True,
    )
