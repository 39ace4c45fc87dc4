"""How well models predict a text the more of it they have read, in bits per byte: comparable across tokenizers.

The in-context curve of :mod:`etude.evaluate.in_context` counts tokens, and those of two models differ. Here documents
are binned by the bytes before. Counting reads the last few bytes only, so its curve shows how hard the text itself is
at each place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.evaluate.answerers import CountingAnswerer
from etude.evaluate.clustered import RatioSums
from etude.evaluate.records import estimate_to_json
from etude.evaluate.statistics import Estimate, mean
from etude.evaluate.text_scoring import require_same_text
from etude.generate.scoring import score_sequences
from etude.model.language_model import LanguageModel

MEASURED_BYTES = 50_000
"""Most bytes of text that the models read: 15,000 tokens of a large model take minutes of one core."""
PASSAGE_CHARS = 4096
"""Longer documents are read as passages of this length, each from its own beginning."""
EDGES = (0, 32, 128, 512, 2048)
"""Where bins of the bytes read before begin."""
EARLY, LATE = 1, 3
"""Bins whose difference shows what the context adds: after 32 to 128 bytes, and after 512 to 2,048."""
_BATCH = 4

Floats = NDArray[np.float64]
BitsOf = Callable[[Sequence[str]], Iterator[Floats]]
"""From passages to the bits of each of their bytes, passage by passage; a token's bits are at its first byte."""


@dataclass(frozen=True)
class ReadingCurve:
    """A reader's bits per byte on passages.

    whole: of all bytes; bins: by the bytes read before, from each of `EDGES` on, None if no passage is so long; gain:
    the mean over passages of the late bin minus the early one, negative if more context helps, None if too few are long
    enough; bits, sizes: of each passage.
    """

    whole: Estimate
    bins: tuple[Estimate | None, ...]
    gain: Estimate | None
    bits: Floats = field(repr=False, compare=False)
    sizes: Floats = field(repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Return the figures as plain values."""
        return {
            "bits_per_byte": estimate_to_json(self.whole),
            "by_bytes_read": [
                {"from": start, **estimate_to_json(estimate)}
                for start, estimate in zip(EDGES, self.bins, strict=True)
                if estimate is not None
            ],
            "gain": None if self.gain is None else estimate_to_json(self.gain),
        }


def passages_of(documents: Sequence[str], max_bytes: int = MEASURED_BYTES) -> list[str]:
    """Return passages of the documents, as many whole ones as fit ``max_bytes`` of UTF-8, at least one."""
    passages: list[str] = []
    left = max_bytes
    for document in documents:
        for start in range(0, len(document), PASSAGE_CHARS):
            passage = document[start : start + PASSAGE_CHARS]
            left -= len(passage.encode())
            if passages and left < 0:
                return passages
            if passage.strip():
                passages.append(passage)
    return passages


def reading_curve(
    passages: Sequence[str], bits_of: BitsOf, report: Callable[[int, int], None] | None = None
) -> ReadingCurve:
    """Measure a reader on passages. Raises ValueError if there are none."""
    if not passages:
        raise ValueError("there is no passage to read")
    whole, binned = RatioSums(1), RatioSums(len(EDGES))
    sizes, totals, gains = [], [], []
    for number, bits in enumerate(bits_of(passages), start=1):
        places = np.searchsorted(EDGES, np.arange(len(bits)), side="right") - 1
        counts = np.bincount(places, minlength=len(EDGES)).astype(np.float64)
        sums = np.bincount(places, bits, len(EDGES)).astype(np.float64)
        binned.add(counts, sums)
        whole.add(counts.sum(keepdims=True), sums.sum(keepdims=True))
        sizes.append(float(counts.sum()))
        totals.append(math.fsum(bits))
        if counts[LATE] >= (EDGES[LATE + 1] - EDGES[LATE]) / 2:
            gains.append(sums[LATE] / counts[LATE] - sums[EARLY] / counts[EARLY])
        if report is not None:
            report(number, len(passages))
    (estimate,) = whole.estimates()
    assert estimate is not None
    gain = mean(gains) if len(gains) > 1 else None
    return ReadingCurve(estimate, tuple(binned.estimates()), gain, np.array(totals), np.array(sizes))


def difference(curve: ReadingCurve, first: ReadingCurve) -> Estimate:
    """Return the bits per byte of a reader minus those of the first, passage by passage."""
    sums = RatioSums(1)
    for size, ours, theirs in zip(curve.sizes, curve.bits, first.bits, strict=True):
        sums.add(np.array([size]), np.array([ours - theirs]))
    (estimate,) = sums.estimates()
    assert estimate is not None
    return estimate


def bits_of_counting(counting: CountingAnswerer) -> BitsOf:
    """Return the reader that only counts."""

    def bits(passages: Sequence[str]) -> Iterator[Floats]:
        for nats in counting.counts.score_all([text.encode() for text in passages], counting.order):
            yield nats / math.log(2)

    return bits


def bits_of_network(model: LanguageModel, tokenizer: EtudeTokenizer) -> BitsOf:
    """Return the reader that is a network with its tokenizer: each passage is read as a document from its beginning."""

    def bits(passages: Sequence[str]) -> Iterator[Floats]:
        for start in range(0, len(passages), _BATCH):
            texts = [tokenizer.normalise(text) for text in passages[start : start + _BATCH]]
            encoded = tokenizer.encode_batch(texts)
            for at, (text, ids) in enumerate(zip(texts, encoded, strict=True), start):
                require_same_text(f"passage {at}", text, tokenizer.decode(ids))
            whole = [[tokenizer.roles.document_id, *ids] for ids in encoded]
            for text, ids, scores in zip(
                texts, encoded, score_sequences(model, whole, batch_size=16), strict=True
            ):
                found = np.zeros(len(text.encode()))
                np.add.at(found, _first_bytes(tokenizer, text, ids), -scores.logprobs / math.log(2))
                yield found

    return bits


def _first_bytes(tokenizer: EtudeTokenizer, text: str, ids: Sequence[int]) -> NDArray[np.int64]:
    """Return the place of each token's first character in the text's UTF-8 bytes."""
    sizes = [len(character.encode()) for character in text]
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    offsets = tokenizer.offsets(text)
    assert len(offsets) == len(ids)
    # A token of a blank alone may have an empty place at the end of the text.
    firsts = starts[[first for first, _ in offsets]]
    return np.asarray(np.minimum(firsts, starts[-1] - 1), np.int64)
