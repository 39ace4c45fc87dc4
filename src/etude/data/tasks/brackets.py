"""Words of two kinds of brackets, each closed by its own kind (Dyck-2)."""

from __future__ import annotations

from etude.data.primer.rng import Rng
from etude.data.tasks.problem import Key, Problem, is_held_out

CLOSER = {"(": ")", "[": "]"}
HEAD = "Brackets: "
END = " end."
"""Apart from the last bracket, which would be one token with a stop and is none with the next bracket."""
FEWEST_PAIRS, MOST_PAIRS = 3, 10
LEAST_INNER = 4
"""A matter of two brackets that match with at least so many between them: two pairs."""


def shape_key(inner: str) -> Key:
    """What stands between two brackets that match, whatever the kinds of the brackets."""
    return ("brackets", inner.replace("[", "(").replace("]", ")"))


def block_keys(marks: str) -> list[Key]:
    """The key of every bracket that is closed in the word or in its beginning; raises ValueError for a wrong one."""
    open_now: list[int] = []
    keys = []
    for at, mark in enumerate(marks):
        if mark in CLOSER:
            open_now.append(at)
        elif not open_now or CLOSER[marks[begin := open_now.pop()]] != mark:
            raise ValueError(f"{marks!r} does not match")
        elif at - begin - 1 >= LEAST_INNER:
            keys.append(shape_key(marks[begin + 1 : at]))
    return keys


def drawn_word(rng: Rng, pairs: int) -> str:
    """A word of so many pairs."""
    if not pairs:
        return ""
    kind, within = rng.pick("(["), rng.between(0, pairs - 1)
    return kind + drawn_word(rng, within) + CLOSER[kind] + drawn_word(rng, pairs - 1 - within)


def spelled(marks: str) -> str:
    return HEAD + " ".join(marks)


def closing(before: str, inner: str, opener: str) -> Problem:
    """After `before`, which may leave brackets open, `opener` and `inner`: which bracket comes now?"""
    return Problem(shape_key(inner), spelled(before + opener + inner) + " ", CLOSER[opener])


def any_brackets(rng: Rng) -> Problem:
    """A word no part of which is held out."""
    while True:
        word = drawn_word(rng, rng.between(FEWEST_PAIRS, MOST_PAIRS))
        if not any(map(is_held_out, block_keys(word))):
            return Problem(("brackets", word), spelled(word[:-1]) + " ", word[-1], END)
