"""The cleaned, split text of a run: a folder that is written once and then only read.

Beside the text store are ``train.npy`` and ``validation.npy`` (byte ranges, :class:`etude.data.corpus.split.Split`) and
``corpus.json`` (what was read, kept and dropped, and the hash of every file). One streaming pass writes the text;
deduplication and the split then use only its tables.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from etude.data.corpus.duplicates import exact_copies, near_copies, near_too_large
from etude.data.corpus.example_split import groups_of, kinds_of, split_examples
from etude.data.corpus.intake import Intake, fitting
from etude.data.corpus.split import Mask, Split, split_hash, split_tail
from etude.data.corpus.store import Int64, StoreWriter, TextStore
from etude.data.files import describe_files
from etude.data.reading.piece import EXAMPLES_KEPT
from etude.data.reading.sources import ExampleSource, Source
from etude.data.tables import load_table
from etude.errors import InputError
from etude.files import read_object, write_json
from etude.text_settings import DataSettings

SCHEMA = 1
_REPORT_BYTES = 1_000_000
Progress = Callable[[str, int, int | None], None]
Part = Literal["train", "validation", "test"]
"""Only examples have a test part: what their files name so. It is neither trained on nor used for validation."""
EXAMPLES = "holds_examples"
"""The fact that the documents of a corpus are examples: lines of JSON, one for each conversation."""


def build_corpus(folder: Path, sources: Sequence[Source], data: DataSettings, progress: Progress) -> None:
    """Read, clean, compare and split the text of ``sources`` into the empty ``folder``.

    Raises:
        InputError: no usable text, or too little for a split.
    """
    intake = Intake()
    writer = StoreWriter(folder)
    _read_all(writer, sources, data, intake, progress)
    text_hash = writer.close()
    if not writer.num_documents:
        raise intake.nothing_usable()
    store = TextStore(folder)
    try:
        examples = any(isinstance(source, ExampleSource) for source in sources)
        kept, notes, near = _without_copies(store, sources, data, intake, progress, near=not examples)
        facts: dict[str, Any] = {}
        if examples:
            names = [source.name for source in sources]
            split, facts, near = _split_examples(folder, store, kept, data, names, notes, progress)
        elif data.split == "tail":
            split = split_tail(store, kept, data.validation_fraction, intake.dropped_words())
        else:
            split = split_hash(
                store, kept, data.validation_fraction, data.section_bytes, progress, intake.dropped_words()
            )
        np.save(folder / "train.npy", split.train)
        np.save(folder / "validation.npy", split.validation)
        facts |= _facts(folder, store, kept, split, intake, notes, near, text_hash)
        write_json(folder / "corpus.json", facts)
    finally:
        store.close()


class Corpus:
    """A corpus folder, read by byte range without holding the text in memory.

    Raises:
        InputError: a file is missing, or its content does not fit the others.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.facts: dict[str, Any] = read_object(folder / "corpus.json")
        self.store = TextStore(folder)
        self.ranges: dict[str, Int64] = {
            part: load_table(folder / f"{part}.npy", np.int64, (None, 3))
            for part in ("train", "validation", *(["test"] if self.facts.get("test") else []))
        }
        for part, rows in self.ranges.items():
            start, end, number = rows.T
            inside = (start >= 0) & (start <= end) & (end <= self.store.offsets[-1])
            if not (inside & (number >= 0) & (number < self.store.num_documents)).all():
                raise InputError(
                    f"{folder / part}.npy is damaged (not parts of the text): prepare the text again"
                )

    @property
    def hash(self) -> str:
        """The hash of every byte of the text and of the split."""
        return str(self.facts["hash"])

    def num_bytes(self, part: Part) -> int:
        """Return the UTF-8 bytes of a part."""
        rows = self.ranges[part]
        return int((rows[:, 1] - rows[:, 0]).sum())

    def documents(self, part: Part, max_bytes: int | None = None) -> Iterator[bytes]:
        """Yield the documents of a part, in the order of its tokens.

        With ``max_bytes``, at most that many bytes are yielded in all; the last document is cut between characters.
        """
        left = max_bytes
        for start, end, _ in self._rows(part):
            if left is None:
                yield self.store.read(start, end)
                continue
            data = self.store.read(start, min(end, start + left))
            if start + left < end:
                data = data.decode("utf-8", "ignore").encode("utf-8")
            left -= end - start
            if data:
                yield data
            if left <= 0:
                return

    def name(self, part: Part, number: int) -> tuple[str, str]:
        """Return (id, origin) of the source of the ``number``-th document of a part."""
        return self.store.name(int(self.ranges[part][number, 2]))

    def kind(self, part: Part, number: int) -> str:
        """Return what the row of the ``number``-th example of a part calls itself; empty where it does not."""
        return self.store.kind(int(self.ranges[part][number, 2]))

    def _rows(self, part: Part) -> Iterator[list[int]]:
        rows = self.ranges[part]
        for first in range(0, len(rows), 4096):
            yield from rows[first : first + 4096].tolist()


def _read_all(
    writer: StoreWriter, sources: Sequence[Source], data: DataSettings, intake: Intake, progress: Progress
) -> None:
    budget = None if data.max_bytes == "auto" else data.max_bytes
    sizes = [source.size for source in sources]
    total = None if None in sizes else sum(size for size in sizes if size is not None)
    if budget is not None:
        total = budget if total is None else min(total, budget)
    reported = 0
    for piece in intake.cleaned(sources, data):
        document, text = piece.document, piece.document.text
        if not piece.continues:
            whole = any(isinstance(source, ExampleSource) for source in sources)
            if budget is not None and _too_long(text, budget - writer.bytes, whole):
                intake.stopped = True
                return
            writer.begin(document.id, document.origin, document.kind)
        if budget is not None and writer.bytes + len(text) * 4 > budget:
            text = fitting(text, budget - writer.bytes)
        writer.add(text)
        if writer.bytes - reported > _REPORT_BYTES:
            reported = writer.bytes
            progress("read", min(reported, total) if total else reported, total)
        if budget is not None and writer.bytes >= budget:
            intake.stopped = True
            return


def _too_long(text: str, room: int, whole: bool) -> bool:
    """Return whether nothing of a document fits into ``room`` bytes; an example fits only as a ``whole``."""
    return len(text.encode("utf-8")) > room if whole else not fitting(text, room).strip()


def _without_copies(
    store: TextStore,
    sources: Sequence[Source],
    data: DataSettings,
    intake: Intake,
    progress: Progress,
    *,
    near: bool,
) -> tuple[Mask, list[str], int | None]:
    """Return (mask of the documents that stay, lines for the report, near copies or None when not searched for).

    Near copies are dropped only with ``near``.
    """
    kept = np.ones(store.num_documents, bool)
    notes: list[str] = []
    if data.deduplicate == "none":
        return kept, notes, None
    copies = exact_copies(np.asarray(store.hashes))
    kept &= ~copies
    _drop_marked(store, copies, "exact copy", intake)
    near_count: int | None = None
    if data.deduplicate == "near" and near:
        why_not = near_too_large(int(kept.sum()), int(store.offsets[-1]))
        if all(source.name.startswith("builtin:") for source in sources):
            why_not = "near copies were not searched for: the text is built in; exact copies were"
        if why_not:
            notes.append(why_not)
        else:
            repeats = near_copies(store, kept, progress)
            near_count = int(repeats.sum())
            kept &= ~repeats
            _drop_marked(store, repeats, "near copy", intake)
    return kept, notes, near_count


def _split_examples(
    folder: Path,
    store: TextStore,
    kept: Mask,
    data: DataSettings,
    sources: Sequence[str],
    notes: list[str],
    progress: Progress,
) -> tuple[Split, dict[str, Any], int | None]:
    """Return the split of examples, the facts that only their corpus has, and the near copies if searched for.

    The rows of the test part are written to ``folder``.
    """
    why_not = "" if data.deduplicate == "near" else "near copies were not searched for"
    if all(name.startswith("builtin:") for name in sources):  # the search would find hardly any
        why_not = "near copies were not searched for, since the text is built in"
    why_not = why_not or near_too_large(int(kept.sum()), int(store.offsets[-1]))
    groups, near = groups_of(store, kept, not why_not, progress)
    tail = data.split == "tail"
    split = split_examples(store, kept, data.validation_fraction, groups, tail=tail, sources=sources)
    apart = split.facts["near_copies_apart"]
    if why_not:
        notes.append(f"{why_not}: they may stand on both sides of the split")
    elif near:
        notes.append(
            f"{near:,} examples are near copies of another: all stay, each group on one side of the split"
        )
    if apart:
        notes.append(
            f"{apart:,} validation examples have a near copy in training: the files state the split, so they stay"
        )
    facts: dict[str, Any] = {EXAMPLES: True, "kinds": kinds_of(store, kept), "test": 0}
    if split.test is not None and len(split.test):
        np.save(folder / "test.npy", split.test)
        facts["test"] = len(split.test)
        notes.append(f"{len(split.test):,} test examples are in neither training nor validation")
    return split, facts, None if why_not else near


def _drop_marked(store: TextStore, marked: Mask, reason: str, intake: Intake) -> None:
    numbers = np.flatnonzero(marked)
    if len(numbers):
        intake.dropped[reason] = len(numbers)
        intake.dropped_bytes[reason] = int((store.offsets[numbers + 1] - store.offsets[numbers]).sum())
    for number in numbers[:EXAMPLES_KEPT].tolist():
        start, end = int(store.offsets[number]), int(store.offsets[number + 1])
        text = store.read(start, min(end, start + 400)).decode("utf-8", "ignore")
        shown = {"name": store.name(number)[0], "text": " ".join(text.split())[:120]}
        intake.examples.setdefault(reason, []).append(shown)


def _facts(
    folder: Path,
    store: TextStore,
    kept: Mask,
    split: Split,
    intake: Intake,
    notes: list[str],
    near: int | None,
    text_hash: str,
) -> dict[str, Any]:
    digest = hashlib.blake2b(text_hash.encode(), digest_size=16)
    digest.update(split.train.tobytes())
    digest.update(b"|" + split.validation.tobytes())
    lengths = (store.offsets[1:] - store.offsets[:-1])[kept]
    counts = Counter(int(length).bit_length() for length in np.asarray(lengths))
    if intake.stopped:
        notes = [*notes, f"reading stopped at data.max_bytes: {int(store.offsets[-1]):,} bytes"]
    return {
        "schema": SCHEMA,
        "hash": digest.hexdigest(),
        "sources": intake.log.as_json(),
        "read": {"documents": intake.documents, "bytes": intake.bytes},
        "kept": {
            "documents": int(kept.sum()),
            "bytes": int(lengths.sum()),
            "chars": int(store.chars[kept].sum()),
        },
        "dropped": {
            reason: {"documents": count, "bytes": intake.dropped_bytes[reason]}
            for reason, count in intake.dropped.most_common()
        },
        "near_copies": near,
        "examples": intake.examples,
        "lengths": {str(2 ** (bits - 1)): counts[bits] for bits in sorted(counts)},
        "split": {
            **split.facts,
            **{
                part: {"documents": len(rows), "bytes": int((rows[:, 1] - rows[:, 0]).sum())}
                for part, rows in (("train", split.train), ("validation", split.validation))
            },
        },
        "notes": notes,
        "files": describe_files(folder, known={"text.bin": text_hash}),
    }
