"""What a tuning costs elsewhere: bits per byte on the reference texts, and probes of general abilities.

The probes are made from tales of the package and from random letters, so they need neither a run's history nor a text
of the user: a copied string, the recall of a name, a closing quote, what only a distant sentence decides. Each stands
beside a wrong text. Both models answer the same items; what the training examples contain is not asked.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from etude.data.conversations.conversation import Example
from etude.data.corpus.corpus import Corpus
from etude.data.reference import ReferenceText
from etude.errors import InputError
from etude.evaluate.items import Probe
from etude.evaluate.network_answerer import ModelAnswerer
from etude.evaluate.results import measure
from etude.evaluate.statistics import mean_difference, proportion
from etude.evaluate.text_probes.suite import text_probes
from etude.evaluate.tuning.asking import Respondent, TextBits
from etude.evaluate.tuning.examined import Counted
from etude.evaluate.tuning.summary import ProbeCost, TextCost, cost_of

ABILITIES = ("induction", "entity recall", "far context", "closure")
"""The probes that are asked."""
ITEMS = 20
"""Most items of a probe."""
ITEM_CHARS = 96
"""Most characters of an item. All probes together are then about as long as the reference texts."""
TALES_SEED, TALES_BYTES = 1, 60_000
SHARE_OF_TIME = 0.25
"""Share of the time that is left which the probes may take of both models."""


@dataclass(frozen=True)
class Readings:
    """What one model makes of the reference texts, and its credits for each item of each probe."""

    texts: list[TextBits]
    credits: list[list[float]]


class Compared(NamedTuple):
    """What a tuning cost: on each text, and on each probe. ``probes_dropped``: there was no time for the probes."""

    texts: tuple[TextCost, ...]
    probes: tuple[ProbeCost, ...]
    probes_dropped: bool


@dataclass
class Costs:
    """What the base and the tuned model are both measured on; ``probes`` are dropped where there is no time."""

    texts: Sequence[ReferenceText]
    probes: Sequence[Probe] = ()
    probes_dropped: bool = False

    def __len__(self) -> int:
        return len(self.texts) + len(self.probes)

    def read(self, model: Respondent, count: Counted, until: float | None = None) -> Readings:
        """Return the readings of a model. With ``until``, the probes are dropped if they would take too long."""
        started = time.monotonic()
        texts = [count(model.read(text)) for text in self.texts]
        seconds = (time.monotonic() - started) * self._relative_size
        if self.probes and until is not None and 2 * seconds > SHARE_OF_TIME * (until - time.monotonic()):
            count.total -= 2 * len(self.probes)
            self.probes, self.probes_dropped = (), True
        return Readings(texts, [count(credits_of(model, probe)) for probe in self.probes])

    def compare(self, before: Readings, after: Readings) -> Compared:
        """Return what the tuning cost on each text and on each probe."""
        texts = zip(self.texts, before.texts, after.texts, strict=True)
        probes = zip(self.probes, before.credits, after.credits, strict=True)
        return Compared(
            tuple(cost_of(text.name, text.digest, *bits) for text, *bits in texts),
            tuple(_cost(probe, *credits) for probe, *credits in probes),
            self.probes_dropped,
        )

    @property
    def _relative_size(self) -> float:
        """Characters of the probes, each candidate a text, over those of the reference texts."""
        read = sum(len(document) for text in self.texts for document in text.documents)
        items = (item for probe in self.probes for item in probe.items)
        asked = sum(len(candidate.given + candidate.said) for item in items for candidate in item.candidates)
        return asked / max(1, read)


def general_probes(corpus: Corpus) -> tuple[Probe, ...]:
    """Return the probes, without items that the training examples of ``corpus`` contain."""

    def training() -> Iterator[str]:
        for document in corpus.documents("train"):
            yield from Example.from_json(document.decode("utf-8")).texts()

    try:
        made = text_probes(training, _tales(), seed=TALES_SEED, max_items=ITEMS, context_chars=ITEM_CHARS)
    except InputError:  # no probe is left
        return ()
    return tuple(probe for probe in made.probes if probe.name in ABILITIES)


@lru_cache(1)
def _tales() -> tuple[str, ...]:
    from etude.data.primer.generator import generate

    return tuple(tale.text for tale in generate(TALES_SEED, max_bytes=TALES_BYTES))


def credits_of(model: Respondent, probe: Probe) -> list[float]:
    """Return the credit of each item of a probe: 1 if it is right, a share if several are tied, else 0."""

    def compute() -> list[float]:
        answerer = ModelAnswerer(model.trained.model, model.trained.tokenizer)
        return list(measure(probe, answerer.answer(probe.items)).credits)

    return [float(value) for value in model.saved(["probe", probe.hash], compute)]


def _cost(probe: Probe, base: Sequence[float], tuned: Sequence[float]) -> ProbeCost:
    groups = [item.group or f"item {at}" for at, item in enumerate(probe.items)]
    return ProbeCost(
        probe.title,
        probe.asks,
        probe.chance,
        len(probe.items),
        probe.hash,
        proportion(base, groups),
        proportion(tuned, groups),
        mean_difference([after - before for before, after in zip(base, tuned, strict=True)], groups),
    )
