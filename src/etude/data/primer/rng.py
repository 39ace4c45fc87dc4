"""A random source whose sequence is the same on every machine and Python version."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from random import Random
from typing import TypeVar

Item = TypeVar("Item")


class Rng:
    """Random choices derived from a text seed.

    Only ``random.Random(int).random()`` is used, the only sequence that the standard library promises to keep;
    ``choice`` and ``shuffle`` have changed between Python versions.
    """

    __slots__ = ("random",)

    def __init__(self, seed: str) -> None:
        digest = blake2b(seed.encode(), digest_size=8).digest()
        self.random = Random(int.from_bytes(digest, "big")).random

    def pick(self, items: Sequence[Item]) -> Item:
        return items[int(self.random() * len(items))]

    def chance(self, probability: float) -> bool:
        return self.random() < probability

    def between(self, low: int, high: int) -> int:
        """Return an integer from low to high, both included."""
        return low + int(self.random() * (high - low + 1))

    def some(self, items: Sequence[Item], count: int) -> list[Item]:
        """Return ``count`` different items in random order."""
        left = list(items)
        return [left.pop(int(self.random() * len(left))) for _ in range(min(count, len(left)))]
