"""Problems that are solved from their own text: the value of a key, the end of a path, a rule from examples."""

from __future__ import annotations

from collections.abc import Sequence

from etude.data.primer.rng import Rng
from etude.data.tasks.problem import Key, Problem, is_held_out
from etude.data.tasks.strings import LETTERS

MOST_PAIRS, MOST_HOPS, MOST_SHOTS = 8, 4, 8
CHAIN_NODES = 6

Pairs = Sequence[tuple[str, str]]


def pairs_key(pairs: Pairs) -> Key:
    return ("pairs", " ".join(key + value for key, value in sorted(pairs)))


def recall(pairs: Pairs, queried: int) -> Problem:
    """Ask for the value of the key at index ``queried``."""
    listed = ", ".join(f"{key} is {value}" for key, value in pairs)
    key, value = pairs[queried]
    return Problem(pairs_key(pairs), f"Remember: {listed}. What is {key} then? ", value)


def drawn_pairs(rng: Rng, count: int) -> Pairs:
    return list(zip(rng.some(LETTERS, count), rng.some("0123456789", count), strict=True))


def any_recall(rng: Rng) -> Problem:
    pairs = drawn_pairs(rng, rng.between(2, MOST_PAIRS))
    return recall(pairs, rng.between(0, len(pairs) - 1))


def chain_key(edges: Pairs) -> Key:
    return ("chain", " ".join(start + end for start, end in sorted(edges)))


def hop(ring: str, edges: Pairs, start: int, hops: int) -> Problem:
    """Ask where a path ends: `ring` lists the nodes along the path, `edges` is the order in which they are listed."""
    listed = ", ".join(f"{origin} to {target}" for origin, target in edges)
    steps = f"{hops} step{'s' if hops > 1 else ''}"
    answer = ring[(start + hops) % len(ring)]
    return Problem(chain_key(edges), f"Chain: {listed}. From {ring[start]}, after {steps}: ", answer)


def drawn_ring(rng: Rng) -> tuple[str, Pairs]:
    ring = "".join(rng.some(LETTERS, CHAIN_NODES))
    return ring, rng.some(list(zip(ring, ring[1:] + ring[0], strict=True)), CHAIN_NODES)


def any_hop(rng: Rng) -> Problem:
    ring, edges = drawn_ring(rng)
    return hop(ring, edges, rng.between(0, CHAIN_NODES - 1), rng.between(1, MOST_HOPS))


def cipher_key(shift: int, letter: str) -> Key:
    return ("cipher", shift, letter)


def shifted(letter: str, shift: int) -> str:
    return LETTERS[(LETTERS.index(letter) + shift) % len(LETTERS)]


def shown_letters(shift: int) -> list[str]:
    """Return the letters whose image under the shift may be shown."""
    return [letter for letter in LETTERS if not is_held_out(cipher_key(shift, letter))]


def cipher(shift: int, shots: Sequence[str], queried: str) -> Problem:
    """Ask for a letter's image: each letter becomes the one ``shift`` places further in the alphabet."""
    listed = ", ".join(f"{letter} to {shifted(letter, shift)}" for letter in shots)
    return Problem(
        cipher_key(shift, queried), f"Cipher: {listed}. Now {queried} to ", shifted(queried, shift)
    )


def any_cipher(rng: Rng) -> Problem:
    shift = rng.between(1, len(LETTERS) - 1)
    *shots, queried = rng.some(shown_letters(shift), rng.between(1, MOST_SHOTS) + 1)
    return cipher(shift, shots, queried)
