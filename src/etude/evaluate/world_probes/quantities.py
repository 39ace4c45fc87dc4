"""Sums that were never told: in digits, and in small stories."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from etude.data.primer.entities import amount
from etude.data.primer.holdout import HELD_SUMS
from etude.data.primer.lexicon import COUNTS, CountKind, number_word
from etude.data.primer.rng import Rng
from etude.evaluate.blocks import END_OF_LINE, Asked, block
from etude.evaluate.items import Item, Probe
from etude.evaluate.world_probes.wording import HAVE_MANY, Evenly, capital, object_, subject, taught_with

Sum = tuple[int, int, str]
_WORD = {"+": "plus", "-": "minus"}


def result(a: int, b: int, op: str) -> int:
    return a + b if op == "+" else a - b


def carries(a: int, b: int) -> bool:
    """Whether the units make ten or more."""
    return a % 10 + b % 10 >= 10


def arithmetic(seed: int, max_items: int) -> list[Probe]:
    """Held-out sums in digits. In a block no result comes twice, and those of all its sums are the candidates."""
    plus, minus = ([one for one in sorted(HELD_SUMS) if one[2] == op] for op in _WORD)
    by_condition = {
        "plus, no carry": [one for one in plus if not carries(*one[:2])],
        "plus, carry": [one for one in plus if carries(*one[:2])],
        "minus": minus,  # too few borrow for a probe of their own
    }
    return [_digits(condition, sums, seed, max_items) for condition, sums in by_condition.items()]


def _digits(condition: str, held_out: Sequence[Sum], seed: int, max_items: int) -> Probe:
    rng = Rng(f"probe {seed} arithmetic {condition}")
    by_result: dict[int, list[Sum]] = defaultdict(list)
    for one in rng.some(held_out, len(held_out)):
        by_result[result(*one)].append(one)
    items: list[Item] = []
    most = max(2, max_items)
    while len(items) < most - 1:
        sums = rng.some([sums.pop() for sums in by_result.values() if sums], most - len(items))
        if len(sums) < 2:
            break
        asked = [(f"What is {a} {_WORD[op]} {b}? ", f"{result(a, b, op)}{END_OF_LINE}") for a, b, op in sums]
        items += _block_of(sums, asked)
    return Probe(
        "arithmetic",
        condition,
        "What is the result? The results of other sums are the wrong ones.",
        tuple(items),
        held_out="This sum, in digits or words, of a page of sums or of a story; with plus, in either order.",
        open_answer=True,
    )


def _block_of(sums: Sequence[Sum], asked: Sequence[Asked]) -> list[Item]:
    """Each sum, however it is told, is a group of its own."""
    return [replace(item, group=_group(*one)) for item, one in zip(block(asked, ""), sums, strict=True)]


def _group(a: int, b: int, op: str) -> str:
    """3 + 4 and 4 + 3 are one sum."""
    return f"{min(a, b)} + {max(a, b)}" if op == "+" else f"{a} - {b}"


_CHANGES = {
    "+": ("{b} gives {him} {part} more.", "{He} gets {part} more from {b}.", "Then {b} brings {part} more."),
    "-": ("{He} gives {part} to {b}.", "{b} takes {part} of them.", "{He} gives {part} away to {b}."),
}
_NOW = (
    "How many {plural} does {a} have now?",
    "How many {plural} has {a} now?",
    "How many {plural} are there for {a} now?",
)
_STARTS, _MOST_MORE = range(3, 16), 9
"""What the stories begin with, and the most that comes to it."""


def word_problems(seed: int, max_items: int) -> list[Probe]:
    """In a block one kind of thing is counted, and every result that held-out sums have is right once."""
    return [_counting(op, seed, max_items) for op in _WORD]


def story_sums(op: str) -> dict[int, list[Sum]]:
    """The held-out sums of the size that stories tell, by their result."""
    found: dict[int, list[Sum]] = defaultdict(list)
    for a, b, sign in sorted(HELD_SUMS):
        fits = 1 <= b <= (_MOST_MORE if op == "+" else a - 1)
        if sign == op and a in _STARTS and fits:
            found[result(a, b, op)].append((a, b, op))
    return dict(found)


def _counting(op: str, seed: int, max_items: int) -> Probe:
    rng = Rng(f"probe {seed} word problems {op}")
    by_result = story_sums(op)
    draws = {value: Evenly(rng, sums) for value, sums in by_result.items()}
    kinds = Evenly(rng, COUNTS)
    items: list[Item] = []
    for _ in range(max(1, max_items // len(by_result))):
        kind = kinds.draw()
        sums = [draws[value].draw() for value in sorted(draws)]
        asked = [(_problem(rng, one, kind), capital(amount(result(*one), kind))) for one in sums]
        items += _block_of(sums, asked)
    return Probe(
        "word problems",
        "gains" if op == "+" else "losses",
        "Somebody has so many, and gets or gives away some; how many are there now?",
        tuple(items),
        held_out="This sum, in digits or words, of a page of sums or of a story; with plus, in either order.",
        open_answer=True,
    )


def _problem(rng: Rng, one: Sum, kind: CountKind) -> str:
    start, part, op = one
    a, b = rng.some(taught_with(kind.noun), 2)
    sentences = (rng.pick(HAVE_MANY), rng.pick(_CHANGES[op]), rng.pick(_NOW))
    return " ".join(sentences).format(
        a=a, b=b, many=amount(start, kind), part=number_word(part), plural=kind.plural,
        him=object_(a), He=capital(subject(a)),
    ) + " "  # fmt: skip
