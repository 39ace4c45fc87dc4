"""Words of two kinds of brackets, each closed by its own kind (Dyck-2)."""

from __future__ import annotations

from etude.data.primer.rng import Rng
from etude.data.tasks.problem import Key, Problem

CLOSER = {"(": ")", "[": "]"}
DEEPEST = 5
HEAD = "Brackets: "


def brackets_key(word: str) -> Key:
    """What stands within the outermost brackets: of which kind those are is no new problem."""
    return ("brackets", word[1:-1])


def depth(word: str) -> int:
    """How deep the word nests; raises ValueError when its brackets do not match."""
    open_now: list[str] = []
    deepest = 0
    for mark in word:
        if mark in CLOSER:
            open_now.append(CLOSER[mark])
            deepest = max(deepest, len(open_now))
        elif not open_now or open_now.pop() != mark:
            raise ValueError(f"{word!r} does not match")
    if open_now:
        raise ValueError(f"{word!r} is not closed")
    return deepest


def drawn_word(rng: Rng, deepest: int) -> str:
    """A word that nests exactly so deep and whose first bracket is closed by its last."""
    word = ""
    for level in range(deepest):
        for _ in range(rng.between(0, 5 if deepest == 2 else 2) if level else 0):
            small = rng.pick(("()", "[]"))
            word = small + word if rng.chance(0.5) else word + small
        kind = rng.pick("([")
        word = kind + word + CLOSER[kind]
    return word


def completion(word: str) -> Problem:
    """The word up to its last bracket, and that bracket."""
    return Problem(brackets_key(word), HEAD + " ".join(word[:-1]) + " ", word[-1] + ".")


def any_brackets(rng: Rng) -> Problem:
    return completion(drawn_word(rng, rng.between(2, DEEPEST)))
