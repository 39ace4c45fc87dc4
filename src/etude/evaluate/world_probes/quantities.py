"""Sums that were never told: in digits, and in small stories."""

from __future__ import annotations

from collections import defaultdict

from etude.data.primer.entities import amount
from etude.data.primer.holdout import HELD_SUMS, LARGEST_ADDEND
from etude.data.primer.lexicon import COUNTS, CountKind, number_word
from etude.data.primer.rng import Rng
from etude.evaluate.blocks import END_OF_LINE, block
from etude.evaluate.items import Candidate, Item, Probe
from etude.evaluate.world_probes.wording import HAVE_MANY, Evenly, capital, object_, subject, taught_with

Sum = tuple[int, int, str]
_WORD = {"+": "plus", "-": "minus"}


def result(a: int, b: int, op: str) -> int:
    return a + b if op == "+" else a - b


def carries(a: int, b: int, op: str) -> bool:
    """Whether the units make ten or more, or are too few to take from."""
    return a % 10 + b % 10 >= 10 if op == "+" else a % 10 < b % 10


def arithmetic(seed: int, max_items: int) -> list[Probe]:
    """Every held-out sum in digits, with all possible results as candidates: they differ in length, so each is
    compared by its mean a token."""
    return [_digits(op, carry, seed, max_items) for op in _WORD for carry in (False, True)]


def _digits(op: str, carry: bool, seed: int, max_items: int) -> Probe:
    rng = Rng(f"probe {seed} arithmetic {op} {carry}")
    asked = [one for one in sorted(HELD_SUMS) if one[2] == op and carries(*one) is carry]
    most = 2 * LARGEST_ADDEND if op == "+" else LARGEST_ADDEND
    items = []
    for a, b, _ in rng.some(asked, max_items):
        text = f"What is {a} {_WORD[op]} {b}? "
        candidates = tuple(Candidate(text, f"{value}{END_OF_LINE}") for value in range(most + 1))
        items.append(Item(candidates, result(a, b, op), _group(a, b, op)))
    step = ("carry" if op == "+" else "borrow") if carry else ("no carry" if op == "+" else "no borrow")
    return Probe(
        "arithmetic",
        f"{_WORD[op]}, {step}",
        "What is the result, of all possible results?",
        tuple(items),
        held_out="This sum, in digits or words, of a page of sums or of a story; with plus, in either order.",
        open_answer=True,
        per_token=True,
    )


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
        for item, one in zip(block(asked, ""), sums, strict=True):
            items.append(Item(item.candidates, item.right, _group(*one)))
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
