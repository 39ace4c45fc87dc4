"""Two-digit sums that were never shown, and questions that were never asked about made-up people."""

from __future__ import annotations

from collections import defaultdict

from etude.data.primer.rng import Rng
from etude.data.tasks import people, sums
from etude.data.tasks.problem import is_held_out
from etude.evaluate.blocks import END_OF_LINE, Question, block, blocks
from etude.evaluate.items import Item, Probe

_RESULTS_APART = (0, 1, 2, 9, 10, 11, 20, 21)
"""Differences between the compared results: one off, ten off (a forgotten carry), both."""
_PEOPLE_COMPARED = 4
_ASKS = {
    "town": ("biographies", "town", "Where was this person born?"),
    "trade": ("biographies", "trade", "What is this person's trade?"),
    "house": ("biographies", "house", "What is this person's house called?"),
    "reversed": ("biographies", "house, reversed", "Who lives in this house? Stated only from person to house."),
}  # fmt: skip


def fact_probes(seed: int, max_items: int) -> list[Probe]:
    return [
        *(_additions(carry, seed, max_items) for carry in (False, True)),
        *(_people(question, seed, max_items) for question in people.QUESTIONS),
    ]


def _additions(carry: bool, seed: int, max_items: int) -> Probe:
    rng = Rng(f"probe {seed} addition {carry}")
    by_result: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for a in range(sums.LARGEST + 1):
        for b in range(sums.LARGEST + 1):
            if is_held_out(sums.sum_key(a, b)) and sums.carries(a, b) is carry:
                by_result[a + b].append((a, b))
    bases = [
        base for base in range(2 * sums.LARGEST) if all(base + more in by_result for more in _RESULTS_APART)
    ]

    def near_results(_: int) -> list[Question]:
        base = rng.pick(bases)
        problems = [sums.addition(*rng.pick(by_result[base + more])) for more in _RESULTS_APART]
        return [(problem.text, problem.answer + END_OF_LINE) for problem in problems]

    return Probe(
        "two-digit addition",
        "carry" if carry else "no carry",
        "What do the two numbers make? The wrong results are one off, ten off, or both.",
        blocks(near_results, max_items),
        held_out="This sum, in either order.",
        open_answer=True,
    )


def _people(question: str, seed: int, max_items: int) -> Probe:
    name, condition, asks = _ASKS[question]
    rng = Rng(f"probe {seed} people {question}")
    held = [person for person in people.PEOPLE if is_held_out(people.question_key(question, person))]
    waiting = rng.some(held, len(held))
    items: list[Item] = []
    while waiting and (not items or len(items) + _PEOPLE_COMPARED <= max_items):
        chosen: dict[str, people.Person] = {}
        for person in waiting:
            if len(chosen) < _PEOPLE_COMPARED:
                chosen.setdefault(person.value(question), person)
        if len(chosen) < _PEOPLE_COMPARED:
            break
        waiting = [person for person in waiting if person not in chosen.values()]
        problems = [people.question_about(question, person) for person in chosen.values()]
        made = block([(problem.text, problem.answer) for problem in problems], "")
        items += [
            Item(item.candidates, item.right, person.name)
            for item, person in zip(made, chosen.values(), strict=True)
        ]
    return Probe(
        name,
        condition,
        asks,
        tuple(items),
        held_out="This question about this person; the fact itself was stated, from the person on.",
        open_answer=True,
    )
