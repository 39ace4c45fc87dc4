"""The interface of everything that answers items, its answers, and the one that only counts (Kneser-Ney over bytes)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from etude.evaluate.items import Item
from etude.evaluate.ngram import KneserNey

Report = Callable[[int, int], None]
"""Progress callback (texts scored, texts in all)."""


@dataclass(frozen=True)
class ItemScore:
    """The answer to an item, in nats.

    logprobs: log P(said | given) of each candidate; units: tokens (bytes for counting) of each `said`;
    answer_logprobs, answer_credits: of each token of the right candidate, see `TokenScores` (counting has no credits);
    cut: a candidate was longer than the model's context and lost its beginning.
    """

    logprobs: NDArray[np.float64]
    units: NDArray[np.int64]
    answer_logprobs: NDArray[np.float64]
    answer_credits: NDArray[np.float64]
    cut: bool = False


class Answerer(Protocol):
    """Anything that gives text a probability."""

    def answer(self, items: Sequence[Item], report: Report | None = None) -> list[ItemScore]: ...


@dataclass(frozen=True)
class CountingAnswerer:
    """Kneser-Ney counts of the training text, with the order that predicts held-out text best."""

    counts: KneserNey
    order: int

    def answer(self, items: Sequence[Item], report: Report | None = None) -> list[ItemScore]:
        texts = list(
            dict.fromkeys(
                (candidate.given + candidate.said).encode() for item in items for candidate in item.candidates
            )
        )
        scored = dict(zip(texts, self.counts.score_all(texts, self.order), strict=True))
        answered = []
        for item in items:
            parts = []
            for candidate in item.candidates:
                nats = scored[(candidate.given + candidate.said).encode()]
                parts.append(-nats[len(candidate.given.encode()) :])
            answered.append(
                ItemScore(
                    np.array([part.sum() for part in parts]),
                    np.array([len(part) for part in parts]),
                    parts[item.right],
                    np.empty(0),
                )
            )
        if report is not None:
            report(len(items), len(items))
        return answered
