"""Items in blocks that share their answers, so that no preference for an answer can look like an ability."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from etude.evaluate.items import Candidate, Item

Question = tuple[str, str]
"""A text up to the answer, and its right answer."""

END_OF_LINE = ".\n"
"""Ends a number, which could otherwise continue, in the way the lines of the training text end. Some tokenizers have
one token for both characters; after such training a stop alone would be a surprise."""

_TRIES = 4
"""Blocks tried for each requested item."""


def block(questions: Sequence[Question], group: str) -> list[Item]:
    """Make one item for each question; the candidates of each are the answers of all, in the same order.

    Raises ValueError if two questions have the same answer: one candidate would then be right more often.
    """
    answers = [answer for _, answer in questions]
    if len(set(answers)) < len(answers):
        raise ValueError("the answers of a block must differ")
    return [
        Item(tuple(Candidate(text, answer) for answer in answers), right, group)
        for right, (text, _) in enumerate(questions)
    ]


def blocks(make: Callable[[int], Sequence[Question]], max_items: int) -> tuple[Item, ...]:
    """Make as many whole blocks as `max_items` allows, at least one: `make(0)`, `make(1)` ..., each a group of its own.

    No block repeats; when new blocks become rare, fewer are returned.
    """
    items: list[Item] = []
    seen: set[frozenset[Question]] = set()
    for number in range(_TRIES * max_items):
        questions = make(number)
        if items and len(items) + len(questions) > max_items:
            break
        if frozenset(questions) not in seen:
            seen.add(frozenset(questions))
            items += block(questions, str(number))
    return tuple(items)
