"""Score held-out text, or answer items, in parts that are saved, so that an interrupted evaluation resumes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from etude.data.corpus.corpus import Corpus, Part
from etude.evaluate.answerers import ItemScore, Report
from etude.evaluate.items import Item
from etude.evaluate.network_answerer import ModelAnswerer
from etude.evaluate.resumable_parts import ALONE, Parts, Work, Workers, done_in_parts, identity_of, slices
from etude.evaluate.text_measures import SCHEMA, TextMeasures, TextSums
from etude.evaluate.text_scoring import Named, add_documents
from etude.pretrained.load_model import load_trained

PART_BYTES = 1 << 16
"""Least source text in a part: some seconds of work for a small model on a CPU."""
MOST_PARTS = 256
"""Most parts of a text; a part's file takes some 100 kB however much text it covers."""
PART_ITEMS = 256


class CorpusDocuments(Sequence[Named]):
    """The first documents of a part of a prepared corpus, read on demand and picklable for other processes.

    max_bytes: take as many whole documents as fit; if not even one fits, its beginning.
    """

    def __init__(self, folder: Path, part: Part = "validation", max_bytes: int | None = None) -> None:
        self.folder, self.part, self.max_bytes = folder, part, max_bytes
        self._corpus = Corpus(folder)
        self._rows = self._corpus.ranges[part]
        if max_bytes is not None:
            ends = np.cumsum(self._rows[:, 1] - self._rows[:, 0])
            self._rows = self._rows[: max(1, int(np.searchsorted(ends, max_bytes, side="right")))]

    def __reduce__(self) -> Any:
        return CorpusDocuments, (self.folder, self.part, self.max_bytes)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, at: int) -> Named: ...
    @overload
    def __getitem__(self, at: slice) -> list[Named]: ...
    def __getitem__(self, at: int | slice) -> Named | list[Named]:
        if isinstance(at, slice):
            return [self[number] for number in range(*at.indices(len(self)))]
        start, end, _ = self._rows[at].tolist()
        if self.max_bytes is not None:
            end = min(end, start + self.max_bytes)
        text = self._corpus.store.read(start, end).decode("utf-8", "ignore")
        return self._corpus.name(self.part, at)[0], text


def measure_text_in_parts(
    model_folder: Path,
    documents: Sequence[Named],
    within: Path,
    *,
    token_counts: NDArray[np.int64] | None = None,
    workers: Workers = ALONE,
    report: Report | None = None,
) -> TextMeasures:
    """Measure as `etude.evaluate.text_scoring.measure_text`, saving each part's sums below `within`.

    When restarted, or run by several processes at once, only missing parts are computed; the figures do not depend on
    how the parts were distributed. report: callback (parts done, parts in all).
    """
    digest, cuts = _cut(documents)
    counts = None if token_counts is None else hashlib.blake2b(token_counts.tobytes()).hexdigest()
    identity = identity_of(model_folder, ["text", SCHEMA, PART_BYTES, digest, counts])
    start = partial(_text_work, model_folder, documents, cuts, token_counts, workers.threads_each)
    sums = TextSums(token_counts)
    for result in done_in_parts(
        Parts(within, identity, len(cuts)), start, processes=workers.processes, report=report
    ):
        sums += TextSums.from_json(result)
    return sums.measures()


@dataclass(frozen=True)
class PartsAnswerer:
    """The network in a folder as an `Answerer`: several processes compute its answers and save them below `within`."""

    model_folder: Path
    within: Path
    workers: Workers = ALONE

    def answer(self, items: Sequence[Item], report: Report | None = None) -> list[ItemScore]:
        content = json.dumps([asdict(item) for item in items], ensure_ascii=True)
        digest = hashlib.blake2b(content.encode("ascii"), digest_size=16).hexdigest()
        cuts = slices(len(items), PART_ITEMS)
        parts = Parts(self.within, identity_of(self.model_folder, ["items", PART_ITEMS, digest]), len(cuts))
        start = partial(_item_work, self.model_folder, items, cuts, self.workers.threads_each)
        results = done_in_parts(parts, start, processes=self.workers.processes, report=report)
        return [_score_from(score) for result in results for score in result]


def _text_work(
    model_folder: Path,
    documents: Sequence[Named],
    cuts: Sequence[range],
    token_counts: NDArray[np.int64] | None,
    threads: int,
) -> Work:
    trained = load_trained(model_folder, threads)

    def work(number: int) -> Any:
        cut = cuts[number]
        sums = TextSums(token_counts)
        some: Iterator[Named] = (documents[at] for at in cut)
        add_documents(sums, trained.model, trained.tokenizer, some, first_number=cut.start)
        return sums.to_json()

    return work


def _item_work(model_folder: Path, items: Sequence[Item], cuts: Sequence[range], threads: int) -> Work:
    trained = load_trained(model_folder, threads)
    answerer = ModelAnswerer(trained.model, trained.tokenizer)

    def work(number: int) -> Any:
        cut = cuts[number]
        return [_score_to(score) for score in answerer.answer(items[cut.start : cut.stop])]

    return work


def _cut(documents: Sequence[Named]) -> tuple[str, list[range]]:
    """Return a hash of all the documents, and consecutive ranges of them of about equal size."""
    digest = hashlib.blake2b(digest_size=16)
    sizes = []
    for name, text in documents:
        encoded = text.encode("utf-8", "replace")
        digest.update(json.dumps([name, len(encoded)]).encode("ascii") + encoded)
        sizes.append(len(encoded))
    wanted = max(PART_BYTES, sum(sizes) // MOST_PARTS)
    cuts: list[range] = []
    begin = size = 0
    for at, document_bytes in enumerate(sizes):
        size += document_bytes
        if size >= wanted:
            cuts.append(range(begin, at + 1))
            begin, size = at + 1, 0
    if begin < len(documents):
        cuts.append(range(begin, len(documents)))
    return digest.hexdigest(), cuts


def _score_to(score: ItemScore) -> dict[str, Any]:
    return {
        "logprobs": score.logprobs.tolist(),
        "units": score.units.tolist(),
        "answer_logprobs": score.answer_logprobs.tolist(),
        "answer_credits": score.answer_credits.tolist(),
        "cut": score.cut,
    }


def _score_from(content: dict[str, Any]) -> ItemScore:
    return ItemScore(
        np.array(content["logprobs"], np.float64),
        np.array(content["units"], np.int64),
        np.array(content["answer_logprobs"], np.float64),
        np.array(content["answer_credits"], np.float64),
        bool(content["cut"]),
    )
