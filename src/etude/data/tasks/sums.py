"""Addition of two numbers of at most two digits: 10,000 pairs."""

from __future__ import annotations

from etude.data.primer.holdout import HELD_SUMS
from etude.data.primer.rng import Rng
from etude.data.tasks.problem import Key, Problem, is_held_out

LARGEST = 99


def sum_key(a: int, b: int) -> Key:
    """Return one key for a sum and its mirror: having seen 3 + 40, a model has seen 40 + 3."""
    return ("add", min(a, b), max(a, b))


def sum_held_out(a: int, b: int) -> bool:
    """Return whether a sum is held out here or in the stories of builtin:primer, since the two may be mixed."""
    return is_held_out(sum_key(a, b)) or (a, b, "+") in HELD_SUMS


def carries(a: int, b: int) -> bool:
    return a % 10 + b % 10 >= 10


def addition(a: int, b: int) -> Problem:
    return Problem(sum_key(a, b), f"{a} plus {b} makes ", str(a + b))


def any_addition(rng: Rng) -> Problem:
    while True:
        a, b = rng.between(0, LARGEST), rng.between(0, LARGEST)
        if not sum_held_out(a, b):
            return addition(a, b)
