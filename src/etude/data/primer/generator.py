"""The built-in corpus: document i of a seed depends on (seed, i) alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count

from etude.data.document import Document, up_to
from etude.data.primer.holdout import contains_held_out, name_objects
from etude.data.primer.rng import Rng
from etude.data.primer.story import Story
from etude.data.primer.tales import KINDS
from etude.data.primer.world import Facts, HeldOut

Plot = Callable[[Story], None]


@dataclass(frozen=True, slots=True)
class Tale:
    """One document: its text, its id ``primer-<seed>-<index>``, its kind, and what is true at its end."""

    text: str
    id: str
    kind: str
    facts: Facts


_WHEEL = tuple((kind, plot) for kind, plot, weight in KINDS for _ in range(weight))
_ATTEMPTS = 200


def tale(seed: int, index: int) -> Tale:
    """Generate document ``index`` of the corpus with this seed: the same bytes on any machine.

    A plan that needs a held-out combination, or a finished text that contains one, is dropped; the document is planned
    again from a seed that includes the number of the attempt.
    """
    for attempt in range(_ATTEMPTS):
        rng = Rng(f"primer {seed} {index} {attempt}")
        kind, plot = rng.pick(_WHEEL)
        story = Story(rng)
        try:
            plot(story)
        except HeldOut:
            continue
        text = story.text()
        if not contains_held_out(text):
            facts = story.world.facts(frozenset(name_objects(text)), tuple(story.questions))
            return Tale(text, f"primer-{seed}-{index}", kind, facts)
    raise AssertionError(f"no document without a held-out combination in {_ATTEMPTS} attempts")


def generate(seed: int, *, max_bytes: int | None = None) -> Iterator[Tale]:
    """Yield documents 0, 1, 2 ... of a seed, without end or until the next would pass ``max_bytes`` of UTF-8.

    Memory is constant. A document is never cut.
    """
    return up_to(map(partial(tale, seed), count()), max_bytes)


def documents(seed: int = 0, max_bytes: int | None = None) -> Iterator[Document]:
    """Yield the corpus as documents of the data pipeline, of origin ``builtin:primer``."""
    for made in generate(seed, max_bytes=max_bytes):
        yield Document(text=made.text, id=made.id, origin="builtin:primer")
