"""Items in blocks within which the answers change places: no preference for an answer can look like an ability."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from etude.evaluate.items import Candidate, Item

Asked = tuple[str, str]
"""A text up to the answer, and its right answer."""

END_OF_LINE = ".\n"
"""Ends a number, of which another may be the beginning, as the lines of the training text end: some tokenizers have
one token for both characters, and after it a stop alone would be a surprise."""

_TRIES = 4
"""Blocks tried for each item asked for."""


def block(asked: Sequence[Asked], group: str) -> list[Item]:
    """One item for each text; the candidates of all are the answers of all, in the same order.

    Raises ValueError where two texts have the same answer: one candidate would then be right more often.
    """
    answers = [answer for _, answer in asked]
    if len(set(answers)) < len(answers):
        raise ValueError("the answers of a block must differ")
    return [
        Item(tuple(Candidate(text, answer) for answer in answers), right, group)
        for right, (text, _) in enumerate(asked)
    ]


def blocks(make: Callable[[int], Sequence[Asked]], max_items: int) -> tuple[Item, ...]:
    """As many whole blocks as `max_items` allows, at least one: `make(0)`, `make(1)` ... each a group of its own.

    No block comes twice; where new ones become rare, there are fewer.
    """
    items: list[Item] = []
    seen: set[frozenset[Asked]] = set()
    for number in range(_TRIES * max_items):
        asked = make(number)
        if items and len(items) + len(asked) > max_items:
            break
        if frozenset(asked) not in seen:
            seen.add(frozenset(asked))
            items += block(asked, str(number))
    return tuple(items)
