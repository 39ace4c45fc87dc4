"""A problem of the task mixture, and which problems are never shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b

from etude.data.primer.rng import Rng

ONE_IN = 5
"""One fifth of every space of problems is held out."""

Key = tuple[str | int, ...]
"""What makes a problem this problem, whatever its wording: its task and its content."""

_ATTEMPTS = 10_000


def is_held_out(key: Key) -> bool:
    """True when no document of the mixture, of any seed, contains the problem: a pure function of its content."""
    digest = blake2b("\x1f".join(map(str, key)).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") % ONE_IN == 0


@dataclass(frozen=True, slots=True)
class Problem:
    """The key of what is asked, the `text` up to the answer, the `answer`, and how the line ends after it."""

    key: Key
    text: str
    answer: str
    end: str = "."

    @property
    def line(self) -> str:
        return self.text + self.answer + self.end


def drawn_until(draw: Callable[[Rng], Problem], rng: Rng, *, held_out: bool) -> Problem:
    """The first problem drawn that is held out, or that is not."""
    for _ in range(_ATTEMPTS):
        problem = draw(rng)
        if is_held_out(problem.key) is held_out:
            return problem
    raise AssertionError("a space of problems without both parts")
