"""A text that the user names, in two parts: one that probes are made from, and one whose n-grams are counted.

The parts are whole documents (sections of long ones), split by a hash of their content as training text is, after
repeated documents are dropped; long lines that both parts contain are moved to one of them.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from etude.data.corpus.corpus import Corpus, build_corpus
from etude.data.reading.options import ReadingOptions
from etude.data.reading.sources import open_sources
from etude.evaluate.answerers import CountingAnswerer
from etude.evaluate.ladder import build_ladder
from etude.evaluate.ngram import KneserNey
from etude.evaluate.questions import HELD_OUT_BYTES
from etude.text_settings import DataSettings

PROBED_SHARE = 0.25
"""Share of the documents that probes are made from."""
MOST_BYTES = 50_000_000
"""Most bytes of the text that are read."""


@dataclass(frozen=True)
class NamedText:
    """A split text. name: what the user typed."""

    name: str
    corpus: Corpus

    def probed(self, max_bytes: int = HELD_OUT_BYTES) -> list[str]:
        """Return the documents that probes are made from, at most ``max_bytes`` of UTF-8 in all."""
        return [text.decode("utf-8", "ignore") for text in self.corpus.documents("validation", max_bytes)]

    def counted(self) -> Iterator[bytes]:
        """Yield the other documents, as UTF-8."""
        return self.corpus.documents("train")

    @cached_property
    def counting(self) -> CountingAnswerer:
        """N-gram counts of the other documents, of the order that predicts the probed part best."""
        ladder = build_ladder(self.counted(), self.corpus.documents("validation"))
        order = min(ladder.rungs, key=lambda rung: rung.bits_per_byte).order
        return CountingAnswerer(KneserNey.fit(self.counted(), order), order)

    def to_json(self) -> dict[str, Any]:
        """Return what the text is and how it was split."""
        return {
            "name": self.name,
            "hash": self.corpus.hash,
            "probed_bytes": self.corpus.num_bytes("validation"),
            "counted_bytes": self.corpus.num_bytes("train"),
            "order": self.counting.order,
        }

    @property
    def line(self) -> str:
        """How the text was used, in one line."""
        return (
            f"text: {self.name}; probes from {self.corpus.num_bytes('validation'):,} bytes of it, held out document "
            f"by document; n-gram: order {self.counting.order}, counted from its other "
            f"{self.corpus.num_bytes('train'):,} bytes"
        )


@contextmanager
def named_text(sources: Sequence[str]) -> Iterator[NamedText]:
    """Read, clean and split the text of ``sources`` for the time of the block.

    Raises:
        InputError: no such source, nothing usable in it, or too little for a split.
    """
    generated = any(
        source.startswith("builtin:") for source in sources
    )  # these generate as much as requested
    data = DataSettings(
        sources=tuple(sources),
        max_bytes="auto" if generated else MOST_BYTES,
        validation_fraction=PROBED_SHARE,
        seed=0,
    )
    budget = None if data.max_bytes == "auto" else data.max_bytes
    work = Path(tempfile.mkdtemp(prefix="etude-"))
    try:
        (work / "spool").mkdir()
        (work / "corpus").mkdir()
        opened = open_sources(
            data.sources,
            options=ReadingOptions.of(data),
            max_bytes=budget,
            seed=0,
            spool=work / "spool",
        )
        build_corpus(work / "corpus", opened, data, lambda stage, done, total: None)
        corpus = Corpus(work / "corpus")
        try:
            yield NamedText(", ".join(sources), corpus)
        finally:
            corpus.store.close()
    finally:
        shutil.rmtree(work, ignore_errors=True)
