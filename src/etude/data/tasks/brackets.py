"""Words of two kinds of brackets, each closed by its own kind (the language Dyck-2)."""

from __future__ import annotations

from etude.data.primer.rng import Rng
from etude.data.tasks.problem import Key, Problem, is_held_out

CLOSER = {"(": ")", "[": "]"}
HEAD = "Brackets: "
END = " end."
"""Separate from the last bracket: with a full stop it would be one token, but with another bracket it is not."""
FEWEST_PAIRS, MOST_PAIRS = 3, 10
LEAST_INNER = 4
"""Matching brackets count as a problem when at least this many characters are between them: two pairs."""


def shape_key(inner: str) -> Key:
    """Return the key of what is between two matching brackets, ignoring the kinds of the brackets."""
    return ("brackets", inner.replace("[", "(").replace("]", ")"))


def block_keys(marks: str) -> list[Key]:
    """Return the key of every closed bracket in the word or its beginning; raise ValueError for a mismatch."""
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
    """Draw a word of ``pairs`` pairs."""
    if not pairs:
        return ""
    kind, within = rng.pick("(["), rng.between(0, pairs - 1)
    return kind + drawn_word(rng, within) + CLOSER[kind] + drawn_word(rng, pairs - 1 - within)


def spelled(marks: str) -> str:
    return HEAD + " ".join(marks)


def closing(before: str, inner: str, opener: str) -> Problem:
    """Ask for the next bracket after `before` (which may leave brackets open), `opener` and `inner`."""
    return Problem(shape_key(inner), spelled(before + opener + inner) + " ", CLOSER[opener])


def any_brackets(rng: Rng) -> Problem:
    """Draw a word no part of which is held out."""
    while True:
        word = drawn_word(rng, rng.between(FEWEST_PAIRS, MOST_PAIRS))
        if not any(map(is_held_out, block_keys(word))):
            return Problem(("brackets", word), spelled(word[:-1]) + " ", word[-1], END)
