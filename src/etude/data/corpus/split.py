"""Split the text into a training part and a part held out for validation.

``hash``: a unit (a document, or a section of a long one) is held out when the hash of its content falls below the
requested share, so its part does not depend on the rest of the corpus. Then units that share a long line with training
move to training (:mod:`etude.data.corpus.leakage`).

``tail``: the last characters of the text, as nanoGPT splits Tiny Shakespeare; nothing is cut or compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from etude.data.corpus.leakage import LINE_CHARS, leaked_units
from etude.data.corpus.sections import cut_sections
from etude.data.corpus.store import Int64, TextStore, content_hash
from etude.errors import InputError

FEW_DOCUMENTS = 20
"""A corpus of fewer documents is cut into sections before the split."""
MIN_SECTIONS = 64
"""The sections of a small corpus are made shorter until there are about this many."""
MIN_SECTION_BYTES = 128
MAX_VALIDATION_BYTES = 4_000_000
"""The hash split holds out the requested share, up to about this many bytes."""
MIN_TEXT_BYTES = 1_000
_TOP_UPS = 4
_REPORT_BYTES = 4_000_000

Mask = npt.NDArray[np.bool_]
Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class Split:
    """Byte ranges of the text store: one row (start, end, number of the source document) per document of the part."""

    train: Int64
    validation: Int64
    facts: dict[str, Any] = field(default_factory=dict)


def split_tail(store: TextStore, kept: Mask, fraction: float, dropped: str = "") -> Split:
    """Train on the first ``int(n * (1 - fraction))`` of n characters, validate on the rest.

    ``dropped``: what was dropped before, in the words of an error.

    Raises:
        InputError: too little text for two parts.
    """
    documents = np.flatnonzero(kept)
    _refuse_tiny(int((store.offsets[documents + 1] - store.offsets[documents]).sum()), dropped)
    ends = np.cumsum(store.chars[documents])
    cut = int(int(ends[-1]) * (1 - fraction))
    if cut == 0 or cut == ends[-1]:
        raise InputError(
            f"data.validation_fraction={fraction} leaves a part without text: use a value such as 0.1"
        )
    where = int(np.searchsorted(ends, cut, side="right"))
    before = cut - (int(ends[where - 1]) if where else 0)
    rows = _whole(store, documents)
    train, validation = rows[:where], rows[where:]
    if before:
        start, end, document = (int(value) for value in rows[where])
        middle = start + _bytes_of_chars(store, start, end, before)
        train = np.concatenate([train, np.array([[start, middle, document]], np.int64)])
        validation = np.concatenate([np.array([[middle, end, document]], np.int64), rows[where + 1 :]])
    facts = {"rule": "tail", "train_chars": cut, "validation_chars": int(ends[-1]) - cut}
    return Split(train, validation, facts)


def split_hash(
    store: TextStore,
    kept: Mask,
    fraction: float,
    section_bytes: int,
    progress: Progress | None = None,
    dropped: str = "",
) -> Split:
    """Split documents (or sections of long ones) by content hash, then move those that share long lines.

    Documents are cut when the corpus has fewer than :data:`FEW_DOCUMENTS`; otherwise only those longer than the whole
    validation part should be. Consecutive sections of one document in the same part stay joined. Validation holds
    between half and twice the requested share unless a single unit is larger. Validation documents are in the order
    of their hashes, so its first documents are a fair sample.

    Raises:
        InputError: too little text, or every candidate shares long lines with the rest.
    """
    documents = np.flatnonzero(kept)
    rows = _whole(store, documents)
    total = int((rows[:, 1] - rows[:, 0]).sum())
    _refuse_tiny(total, dropped)
    target = min(fraction * total, MAX_VALIDATION_BYTES)
    units, hashes, cut_documents, section = _units(store, rows, total, target, section_bytes)
    if len(units) < 2:
        raise InputError("the text is one line that cannot be held out in part: add more text or line breaks")
    held_out, moved = _hold_out(store, units, hashes, target, progress)
    if not held_out.any():
        raise InputError(
            f"no text can be held out: {_why_nothing(hashes, moved)}; type --set data.split=tail, or give text that "
            "repeats itself less"
        )
    train = _joined(units[~held_out])
    validation = units[held_out]
    validation = validation[np.argsort(hashes[held_out], kind="stable")]
    validation = _ordered_by_first(_joined(units[held_out]), validation)
    facts = {
        "rule": "hash",
        "documents_cut": cut_documents,
        "sections": len(units) - len(documents) + cut_documents if cut_documents else 0,
        "section_bytes": section if cut_documents else None,
        "moved_to_training": int(moved),
        "line_chars": LINE_CHARS,
        "capped": fraction * total > MAX_VALIDATION_BYTES,
    }
    return Split(train, validation, facts)


def _why_nothing(hashes: npt.NDArray[np.uint64], moved: int) -> str:
    """Return why every unit is in training: equal units stay together, and those that share lines moved there."""
    if moved:
        return f"every part that was tried shares a line of {LINE_CHARS} or more characters with the rest"
    equal = int(np.unique(hashes, return_counts=True)[1].max())
    return f"{equal:,} of its {len(hashes):,} parts are the same text"


def _refuse_tiny(total: int, dropped: str) -> None:
    if total < MIN_TEXT_BYTES:
        advice = "; --set data.deduplicate=none keeps copies" if "copy" in dropped else ""
        raise InputError(
            f"there are only {total:,} bytes of usable text{dropped}: at least {MIN_TEXT_BYTES:,} are needed, and "
            f"100,000 to learn anything from{advice}"
        )


def _whole(store: TextStore, documents: npt.NDArray[np.intp]) -> Int64:
    return np.stack([store.offsets[documents], store.offsets[documents + 1], documents], axis=1).astype(
        np.int64
    )


def _bytes_of_chars(store: TextStore, start: int, end: int, chars: int) -> int:
    """Return the number of bytes of the first ``chars`` characters of the range."""
    position = start
    while position < end:
        window = np.frombuffer(store.read(position, min(end, position + (1 << 20))), np.uint8)
        first_bytes = np.flatnonzero((window & 0xC0) != 0x80)
        if len(first_bytes) > chars:
            return position + int(first_bytes[chars]) - start
        chars -= len(first_bytes)
        position += len(window)
    return end - start


def _units(
    store: TextStore, rows: Int64, total: int, target: float, section_bytes: int
) -> tuple[Int64, npt.NDArray[np.uint64], int, int]:
    """Return (units, their content hashes, documents cut, bytes per section)."""
    few = len(rows) < FEW_DOCUMENTS
    section = section_bytes
    if few:
        section = min(section_bytes, max(MIN_SECTION_BYTES, total // MIN_SECTIONS))
    lengths = rows[:, 1] - rows[:, 0]
    long = lengths > (section + section // 2 if few else max(target, section + section // 2))
    hashes = np.array(store.hashes[rows[:, 2]], np.uint64)
    if not long.any():
        return rows, hashes, 0, section
    pieces = [rows[~long]]
    piece_hashes = [hashes[~long]]
    for start, end, document in rows[long].tolist():
        ranges = list(cut_sections(store.read, start, end, section))
        pieces.append(np.array([(a, b, document) for a, b in ranges], np.int64))
        piece_hashes.append(np.array([content_hash(store.read(a, b)) for a, b in ranges], np.uint64))
    units, all_hashes = np.concatenate(pieces), np.concatenate(piece_hashes)
    order = np.argsort(units[:, 0], kind="stable")
    return units[order], all_hashes[order], int(long.sum()), section


def _hold_out(
    store: TextStore,
    units: Int64,
    hashes: npt.NDArray[np.uint64],
    target: float,
    progress: Progress | None,
) -> tuple[Mask, int]:
    """Return (mask of the units held out, how many had to move to training).

    The next units by hash are tried when less than half of the target is left.
    """
    order = np.argsort(hashes, kind="stable")
    sizes = (units[:, 1] - units[:, 0])[order]
    total = int(sizes.sum())
    taken = _first_count(hashes[order], sizes, target, total)
    held_out = np.zeros(len(units), bool)
    held_out[order[:taken]] = True
    moved_in_all = 0
    for _ in range(_TOP_UPS):
        moved = leaked_units(_texts(store, units, held_out), _training(store, units, ~held_out, progress))
        held_out[list(moved)] = False
        moved_in_all += len(moved)
        missing = target - int((units[held_out, 1] - units[held_out, 0]).sum())
        if not moved or missing < target / 2 or taken >= len(units) // 2:
            break
        more = int(np.searchsorted(np.cumsum(sizes[taken:]), missing)) + 1
        held_out[order[taken : taken + more]] = True
        taken += more
    else:
        moved = leaked_units(_texts(store, units, held_out), _training(store, units, ~held_out, progress))
        held_out[list(moved)] = False
        moved_in_all += len(moved)
    return held_out, moved_in_all


def _first_count(ranked: npt.NDArray[np.uint64], sizes: Int64, target: float, total: int) -> int:
    """Return how many units, in the order of their hashes, are held out at first.

    These are the units whose hash lies below the requested share. In a small corpus their bytes may be far off by
    chance, so the count is limited to between half and twice the requested bytes. At least one unit is held out and
    never all; units with equal content stay together.
    """
    threshold = np.uint64(min(target / total, 1.0) * 2.0**63) * np.uint64(2)
    count = int(np.searchsorted(ranked, threshold))
    sums = np.cumsum(sizes)
    at_least = int(np.searchsorted(sums, target / 2)) + 1
    at_most = int(np.searchsorted(sums, target * 2, side="right"))
    count = min(max(count, at_least), max(at_most, 1))
    count = min(max(count, 1), len(ranked) - 1)
    while 0 < count < len(ranked) and ranked[count] == ranked[count - 1]:
        count += 1
    return count if count < len(ranked) else 0


def _texts(store: TextStore, units: Int64, mask: Mask) -> Iterator[tuple[int, str]]:
    for unit in np.flatnonzero(mask).tolist():
        yield unit, store.read(int(units[unit, 0]), int(units[unit, 1])).decode("utf-8")


def _training(store: TextStore, units: Int64, mask: Mask, progress: Progress | None) -> Iterator[str]:
    done, reported, total = 0, 0, int((units[mask, 1] - units[mask, 0]).sum())
    for _, text in _texts(store, units, mask):
        yield text
        done += len(text)
        if progress is not None and done - reported > _REPORT_BYTES:
            reported = done
            progress("check split", min(done, total), total)


def _joined(units: Int64) -> Int64:
    """Join touching sections of one document into one range."""
    if len(units) < 2:
        return units
    follows = (units[1:, 0] == units[:-1, 1]) & (units[1:, 2] == units[:-1, 2])
    first = np.concatenate([[True], ~follows])
    last = np.concatenate([~follows, [True]])
    return np.stack([units[first, 0], units[last, 1], units[first, 2]], axis=1)


def _ordered_by_first(joined: Int64, by_hash: Int64) -> Int64:
    """Return the ``joined`` ranges in the order in which their first units stand in ``by_hash``."""
    rank = {start: position for position, start in enumerate(by_hash[:, 0].tolist())}
    return joined[np.argsort([rank[start] for start in joined[:, 0].tolist()], kind="stable")]
