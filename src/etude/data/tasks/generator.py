"""The task mixture as documents: document i of a seed depends on (seed, i) alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count

from etude.data.document import Document, up_to
from etude.data.primer.rng import Rng
from etude.data.tasks import brackets, lookups, people, strings, sums
from etude.data.tasks.problem import Problem, drawn_until

_DRAWS: dict[str, Callable[[Rng], Problem]] = {
    "copy": strings.any_copy,
    "reverse": strings.any_reverse,
    "count": strings.any_count,
    "parity": strings.any_parity,
    "recall": lookups.any_recall,
    "hops": lookups.any_hop,
    "cipher": lookups.any_cipher,
    "brackets": brackets.any_brackets,
    "addition": sums.any_addition,
    "questions": people.any_question,
}
_WHEEL = (*_DRAWS, "addition", "biographies", "biographies")
"""Sums and people are fixed lists to be learned, so they appear more often."""


def document(seed: int, index: int) -> Document:
    """Return several problems of one kind, one per line, none held out: the same bytes on any machine."""
    rng = Rng(f"tasks {seed} {index}")
    kind = rng.pick(_WHEEL)
    if kind == "biographies":
        lines = [people.biography(rng, person) for person in rng.some(people.PEOPLE, rng.between(2, 4))]
    else:
        lines = [drawn_until(_DRAWS[kind], rng, held_out=False).line for _ in range(rng.between(4, 8))]
    return Document(text="\n".join(lines), id=f"tasks-{seed}-{index}", origin="builtin:tasks")


def documents(seed: int = 0, max_bytes: int | None = None) -> Iterator[Document]:
    """Yield documents 0, 1, 2 ... of a seed, without end or until the next would pass ``max_bytes`` of UTF-8."""
    return up_to(map(partial(document, seed), count()), max_bytes)
