"""A problem of the task mixture, and which problems are never shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b

from etude.data.primer.rng import Rng

ONE_IN = 5
"""One fifth of every set of problems is held out."""

Key = tuple[str | int, ...]
"""What identifies a problem regardless of its wording: its task and its content."""

_ATTEMPTS = 10_000


def is_held_out(key: Key) -> bool:
    """Return True when no document of the mixture contains the problem, for any seed: a pure function of the key."""
    digest = blake2b("\x1f".join(map(str, key)).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") % ONE_IN == 0


@dataclass(frozen=True, slots=True)
class Problem:
    """The key of the problem, the `text` up to the answer, the `answer`, and the `end` of the line."""

    key: Key
    text: str
    answer: str
    end: str = "."

    @property
    def line(self) -> str:
        return self.text + self.answer + self.end


def drawn_until(draw: Callable[[Rng], Problem], rng: Rng, *, held_out: bool) -> Problem:
    """Draw problems until one is held out, or is not, as requested."""
    for _ in range(_ATTEMPTS):
        problem = draw(rng)
        if is_held_out(problem.key) is held_out:
            return problem
    raise AssertionError("a space of problems without both parts")
