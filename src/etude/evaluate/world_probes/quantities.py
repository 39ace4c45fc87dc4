"""Sums that no story contains, in digits and in small stories."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from etude.data.primer.entities import amount
from etude.data.primer.holdout import HELD_SUMS
from etude.data.primer.lexicon import COUNTS, CountKind, number_word
from etude.data.primer.rng import Rng
from etude.evaluate.blocks import END_OF_LINE, Question, block
from etude.evaluate.items import Item, Probe
from etude.evaluate.world_probes.wording import HAVE_MANY, Evenly, capital, object_, subject, taught_with

Sum = tuple[int, int, str]
_WORD = {"+": "plus", "-": "minus"}


def result(a: int, b: int, op: str) -> int:
    return a + b if op == "+" else a - b


def carries(a: int, b: int) -> bool:
    """Return whether the units add up to ten or more."""
    return a % 10 + b % 10 >= 10


def arithmetic(seed: int, max_items: int) -> list[Probe]:
    """Ask for held-out sums in digits. The results in a block are distinct, and all of them are the candidates."""
    plus, minus = ([numbers for numbers in sorted(HELD_SUMS) if numbers[2] == op] for op in _WORD)
    by_condition = {
        "plus, no carry": [numbers for numbers in plus if not carries(*numbers[:2])],
        "plus, carry": [numbers for numbers in plus if carries(*numbers[:2])],
        "minus": minus,  # too few borrow for a probe of their own
    }
    return [_digits(condition, sums, seed, max_items) for condition, sums in by_condition.items()]


def _digits(condition: str, held_out: Sequence[Sum], seed: int, max_items: int) -> Probe:
    rng = Rng(f"probe {seed} arithmetic {condition}")
    by_result: dict[int, list[Sum]] = defaultdict(list)
    for numbers in rng.some(held_out, len(held_out)):
        by_result[result(*numbers)].append(numbers)
    items: list[Item] = []
    most = max(2, max_items)
    while len(items) < most - 1:
        sums = rng.some([sums.pop() for sums in by_result.values() if sums], most - len(items))
        if len(sums) < 2:
            break
        questions = [
            (f"What is {a} {_WORD[op]} {b}? ", f"{result(a, b, op)}{END_OF_LINE}") for a, b, op in sums
        ]
        items += _block_of(sums, questions)
    return Probe(
        "arithmetic",
        condition,
        "What is the result? The results of other sums are the wrong ones.",
        tuple(items),
        held_out="This sum, in digits or words, of a page of sums or of a story; with plus, in either order.",
        open_answer=True,
    )


def _block_of(sums: Sequence[Sum], questions: Sequence[Question]) -> list[Item]:
    """Make a block in which each sum, in whatever wording, is a group of its own."""
    return [
        replace(item, group=_group(*numbers))
        for item, numbers in zip(block(questions, ""), sums, strict=True)
    ]


def _group(a: int, b: int, op: str) -> str:
    """Return one name for 3 + 4 and 4 + 3."""
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
"""The range of a story's first number, and the most that is added to it."""


def word_problems(seed: int, max_items: int) -> list[Probe]:
    """Count one kind of thing in each block; every result that held-out sums have is right once."""
    return [_counting(op, seed, max_items) for op in _WORD]


def story_sums(op: str) -> dict[int, list[Sum]]:
    """Return the held-out sums small enough for stories, by their result."""
    by_result: dict[int, list[Sum]] = defaultdict(list)
    for a, b, sign in sorted(HELD_SUMS):
        fits = 1 <= b <= (_MOST_MORE if op == "+" else a - 1)
        if sign == op and a in _STARTS and fits:
            by_result[result(a, b, op)].append((a, b, op))
    return dict(by_result)


def _counting(op: str, seed: int, max_items: int) -> Probe:
    rng = Rng(f"probe {seed} word problems {op}")
    by_result = story_sums(op)
    draws = {value: Evenly(rng, sums) for value, sums in by_result.items()}
    kinds = Evenly(rng, COUNTS)
    items: list[Item] = []
    for _ in range(max(1, max_items // len(by_result))):
        kind = kinds.draw()
        sums = [draws[value].draw() for value in sorted(draws)]
        questions = [
            (_problem(rng, numbers, kind), capital(amount(result(*numbers), kind))) for numbers in sums
        ]
        items += _block_of(sums, questions)
    return Probe(
        "word problems",
        "gains" if op == "+" else "losses",
        "A person has some things, and gets or gives away some; how many are there now?",
        tuple(items),
        held_out="This sum, in digits or words, of a page of sums or of a story; with plus, in either order.",
        open_answer=True,
    )


def _problem(rng: Rng, numbers: Sum, kind: CountKind) -> str:
    start, part, op = numbers
    a, b = rng.some(taught_with(kind.noun), 2)
    sentences = (rng.pick(HAVE_MANY), rng.pick(_CHANGES[op]), rng.pick(_NOW))
    return " ".join(sentences).format(
        a=a, b=b, many=amount(start, kind), part=number_word(part), plural=kind.plural,
        him=object_(a), He=capital(subject(a)),
    ) + " "  # fmt: skip
