"""Copy a string of letters, reverse it, count a letter in it."""

from __future__ import annotations

from etude.data.primer.rng import Rng
from etude.data.tasks.problem import Key, Problem

LETTERS = "abcdefghijklmnopqrstuvwxyz"
LONGEST_COPY = 8
SHORTEST_COUNT, LONGEST_COUNT = 4, 12
COUNTED, ALPHABET = "a", "abc"


def spaced(letters: str) -> str:
    """Separate the letters by spaces, so that a word tokenizer sees each of them."""
    return " ".join(letters)


def string_key(letters: str) -> Key:
    """Return a key that ignores the order of the letters, since a probe compares two orders of the same letters."""
    return ("string", "".join(sorted(letters)))


def copy(letters: str) -> Problem:
    return Problem(string_key(letters), f"Copy: {spaced(letters)}. The same again: ", spaced(letters))


def reverse(letters: str) -> Problem:
    text = f"Turn round: {spaced(letters)}. The other way: "
    return Problem(string_key(letters), text, spaced(letters[::-1]))


def counted_key(letters: str) -> Key:
    return ("letters", letters)


def count(letters: str) -> Problem:
    text = f"Letters: {spaced(letters)}. The number of {COUNTED}: "
    return Problem(counted_key(letters), text, str(letters.count(COUNTED)))


def parity(letters: str) -> Problem:
    text = f"Letters: {spaced(letters)}. Is the number of {COUNTED} odd or even? "
    return Problem(counted_key(letters), text, "Odd" if letters.count(COUNTED) % 2 else "Even")


def drawn(rng: Rng, alphabet: str, length: int) -> str:
    return "".join(rng.pick(alphabet) for _ in range(length))


def any_copy(rng: Rng) -> Problem:
    return copy(drawn(rng, LETTERS, rng.between(2, LONGEST_COPY)))


def any_reverse(rng: Rng) -> Problem:
    return reverse(drawn(rng, LETTERS, rng.between(2, LONGEST_COPY)))


def any_count(rng: Rng) -> Problem:
    return count(drawn(rng, ALPHABET, rng.between(SHORTEST_COUNT, LONGEST_COUNT)))


def any_parity(rng: Rng) -> Problem:
    return parity(drawn(rng, ALPHABET, rng.between(SHORTEST_COUNT, LONGEST_COUNT)))
