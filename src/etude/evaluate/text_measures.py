"""Summarise the log-probabilities of a held-out text: the overall loss, its distribution, and calibration.

The figures come from sums over documents (`TextSums`); sums of separately measured parts can be added.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etude.errors import InputError
from etude.evaluate.clustered import CalibrationSums, RatioSums, pooled
from etude.evaluate.statistics import Estimate
from etude.files import json_safe

SCHEMA = 1
CONFIDENCE_BINS = 10
RANKED = 5
"""Documents listed at either end."""
RANKED_FROM_BYTES = 256
"""Shorter documents are best or worst only by chance."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ScoredDocument:
    """One document of the text: its tokens, and the `TokenScores` of each.

    number: its position in the whole text; num_bytes: of its source text in UTF-8; seen: how many tokens preceded each
    in the model's context; credits, confidences: of the first guess.
    """

    number: int
    name: str
    num_bytes: int
    token_ids: Ints
    seen: Ints
    logprobs: Floats
    credits: Floats
    confidences: Floats
    briers: Floats


@dataclass(frozen=True, slots=True)
class Bin:
    """Tokens whose position (or count in the training text) is from `low` to `high`, and their nats per token."""

    low: int
    high: int
    tokens: int
    nats: Estimate


@dataclass(frozen=True, slots=True)
class Reliability:
    """First guesses with probabilities in [low, high): their confidence, and how many were right.

    gap: share right minus confidence; above 0 the model is underconfident, below 0 overconfident.
    """

    low: float
    high: float
    tokens: int
    confidence: float
    right: float
    gap: Estimate


@dataclass(frozen=True, slots=True, order=True)
class Ranked:
    """A document ranked by its bits per byte."""

    bits_per_byte: float
    name: str
    num_bytes: int


@dataclass(frozen=True, slots=True)
class ByDocument:
    """Bits per byte of documents, each counted once regardless of its length.

    spread: the standard deviation over documents; best, worst: among those of at least `RANKED_FROM_BYTES` bytes.
    """

    mean: Estimate
    spread: float
    best: tuple[Ranked, ...]
    worst: tuple[Ranked, ...]


@dataclass(frozen=True, slots=True)
class TextMeasures:
    """How well a model predicts a text that it was not trained on; all intervals count documents.

    bits_per_byte: of the text alone, without document ends, over the bytes of the source text; first_guess: the share
    of tokens that are the model's first guess, ties shared; brier: of the next token; by_seen: nats by the number of
    tokens that the model had before (including the token that begins a document; later bins hold tokens of long
    documents only); by_frequency: nats by the token's count in the training text, empty if unknown; calibration_error:
    mean distance between confidence and share right.
    """

    documents: int
    empty_documents: int
    tokens: int
    num_bytes: int
    bits_per_byte: Estimate
    nats_per_token: Estimate
    first_guess: Estimate
    brier: Estimate
    by_seen: tuple[Bin, ...]
    by_frequency: tuple[Bin, ...]
    by_document: ByDocument
    calibration: tuple[Reliability, ...]
    calibration_error: Estimate

    def to_json(self) -> dict[str, Any]:
        """Return plain values with the schema's version; an unknown interval (one document) is null."""
        return {"schema": SCHEMA, **json_safe(asdict(self))}


class TextSums:
    """Accumulate documents one by one, keeping only sums.

    token_counts: each token's count in the training text, by id; None if unknown.
    """

    def __init__(self, token_counts: Ints | None = None) -> None:
        self._decades = None if token_counts is None else _decades(token_counts)
        self.empty = 0
        self.bytes = RatioSums(1)
        self.whole = RatioSums(3)
        """Nats, credits and Brier scores of all tokens."""
        self.seen = RatioSums(64)
        self.frequency = RatioSums(20)
        self.levels = RatioSums(1)
        self.calibration = CalibrationSums(CONFIDENCE_BINS)
        self.best: list[Ranked] = []
        self.worst: list[Ranked] = []

    def add(self, document: ScoredDocument) -> None:
        nats, count = -document.logprobs, float(len(document.logprobs))
        total = math.fsum(nats)
        bits_per_byte = total / math.log(2) / document.num_bytes
        self.bytes.add(np.array([float(document.num_bytes)]), np.array([total / math.log(2)]))
        self.whole.add(np.full(3, count), np.array([total, document.credits.sum(), document.briers.sum()]))
        self.seen.add(*pooled(nats, np.frexp(document.seen - 1)[1].astype(np.int64), 64))
        if self._decades is not None:
            self.frequency.add(*pooled(nats, self._decades[document.token_ids], 20))
        self.levels.add(np.ones(1), np.array([bits_per_byte]))
        self.calibration.add(document.confidences, document.credits, document.number)
        if document.num_bytes >= RANKED_FROM_BYTES:
            self._rank([Ranked(bits_per_byte, document.name, document.num_bytes)])

    def __iadd__(self, other: TextSums) -> TextSums:
        self.empty += other.empty
        for name in ("bytes", "whole", "seen", "frequency", "levels", "calibration"):
            ours = getattr(self, name)
            ours += getattr(other, name)
        self._rank([*other.best, *other.worst])
        return self

    def _rank(self, more: list[Ranked]) -> None:
        self.best = sorted({*self.best, *more})[:RANKED]
        self.worst = sorted({*self.worst, *more}, reverse=True)[:RANKED]

    def measures(self) -> TextMeasures:
        """Compute the figures. Raises InputError if no document holds text."""
        (bits,) = self.bytes.estimates()
        nats, right, brier = self.whole.estimates()
        (level,) = self.levels.estimates()
        if bits is None or nats is None or right is None or brier is None or level is None:
            raise InputError("the held-out text is empty: name a text with at least one character")
        documents = self.levels.counts[0]
        squares = self.levels.sums[5, 0] - documents * level.value**2
        spread = math.sqrt(max(0.0, squares) / (documents - 1)) if documents > 1 else 0.0
        return TextMeasures(
            documents,
            self.empty,
            self.whole.counts[0],
            self.bytes.counts[0],
            bits,
            nats,
            right,
            brier,
            _bins(self.seen, [(2**at // 2 + 1, 2**at) for at in range(64)]),
            _bins(self.frequency, [(0, 0)] + [(10**at, 10 ** (at + 1) - 1) for at in range(19)]),
            ByDocument(level, spread, tuple(self.best), tuple(self.worst)),
            _reliability(self.calibration),
            self.calibration.expected_error(documents),
        )

    def to_json(self) -> dict[str, Any]:
        """Serialise the sums of a part; `from_json` restores them bit for bit."""
        names = ("bytes", "whole", "seen", "frequency", "levels", "calibration")
        return {
            "empty": self.empty,
            **{name: getattr(self, name).to_json() for name in names},
            "best": [[document.bits_per_byte, document.name, document.num_bytes] for document in self.best],
            "worst": [[document.bits_per_byte, document.name, document.num_bytes] for document in self.worst],
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> TextSums:
        sums = cls()
        sums.empty = int(content["empty"])
        for name in ("bytes", "whole", "seen", "frequency", "levels"):
            setattr(sums, name, RatioSums.from_json(content[name]))
        sums.calibration = CalibrationSums.from_json(content["calibration"])
        sums.best = [Ranked(*document) for document in content["best"]]
        sums.worst = [Ranked(*document) for document in content["worst"]]
        return sums


def _decades(token_counts: Ints) -> Ints:
    """Return, for each token id, the bin of its count: 0, 1 to 9, 10 to 99, ..."""
    return np.array([len(str(count)) if count else 0 for count in token_counts.tolist()], np.int64)


def _bins(sums: RatioSums, borders: Sequence[tuple[int, int]]) -> tuple[Bin, ...]:
    binned = zip(borders, sums.counts, sums.estimates(), strict=True)
    return tuple(Bin(low, high, count, nats) for (low, high), count, nats in binned if nats is not None)


def _reliability(sums: CalibrationSums) -> tuple[Reliability, ...]:
    binned = enumerate(zip(sums.gaps.counts, sums.gaps.estimates(), strict=True))
    return tuple(
        Reliability(
            at / sums.bins,
            (at + 1) / sums.bins,
            count,
            float(sums.confidences[at]) / count,
            float(sums.rights[at]) / count,
            gap,
        )
        for at, (count, gap) in binned
        if gap is not None
    )
