"""Repeated documents: exact copies at any size, near copies by MinHash where memory and time stay bounded.

Exact copies are found by sorting the 64-bit content hashes of the store: 24 bytes a document for a moment. Two
different documents among ten million share a hash with a probability of about 3 in a million.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from etude.data.corpus.store import TextStore

NEAR_MAX_BYTES = 32_000_000
NEAR_MAX_DOCUMENTS = 50_000
"""Above either, near copies are not looked for: an index of 50,000 documents takes about 150 MB."""
NEAR_SIMILARITY = 0.8
"""Documents are near copies when at least this share of their 5-word sequences is common (Jaccard, estimated)."""
_SHINGLE_WORDS = 5
_PERMUTATIONS = 64
_READ_BYTES = 200_000
"""Of a longer document the beginning decides."""

Mask = npt.NDArray[np.bool_]
Progress = Callable[[str, int, int | None], None]


def exact_copies(hashes: npt.NDArray[np.uint64]) -> Mask:
    """(documents,) True for every document that repeats an earlier one."""
    order = np.argsort(hashes, kind="stable")
    ranked = hashes[order]
    copies = np.zeros(len(hashes), bool)
    copies[order[1:]] = ranked[1:] == ranked[:-1]
    return copies


def near_too_large(num_documents: int, num_bytes: int) -> str:
    """Why near copies are not looked for in a corpus of this size; empty when they are."""
    if num_documents > NEAR_MAX_DOCUMENTS or num_bytes > NEAR_MAX_BYTES:
        return (
            f"near-duplicates were not looked for: the corpus is above {NEAR_MAX_BYTES // 1_000_000} MB "
            f"or {NEAR_MAX_DOCUMENTS:,} documents; exact copies were"
        )
    return ""


def near_copies(store: TextStore, kept: Mask, progress: Progress | None = None) -> Mask:
    """(documents,) True for every kept document that nearly repeats an earlier kept one.

    MinHash (Broder 1997) with locality-sensitive hashing, by the ``datasketch`` library. The first of several near
    copies stays.
    """
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=NEAR_SIMILARITY, num_perm=_PERMUTATIONS)
    signatures: dict[int, MinHash] = {}
    copies = np.zeros(store.num_documents, bool)
    for number in np.flatnonzero(kept).tolist():
        if progress is not None and number % 256 == 0:
            progress("find near copies", int(store.offsets[number]), int(store.offsets[-1]))
        shingles = _shingles(store, number)
        if not shingles:
            continue
        signature = MinHash(num_perm=_PERMUTATIONS, seed=1)
        signature.update_batch(shingles)
        near = index.query(signature)
        if any(signature.jaccard(signatures[other]) >= NEAR_SIMILARITY for other in near):
            copies[number] = True
        else:
            index.insert(number, signature, check_duplication=False)
            signatures[number] = signature
    return copies


def _shingles(store: TextStore, number: int) -> list[bytes]:
    start, end = int(store.offsets[number]), int(store.offsets[number + 1])
    words = store.read(start, min(end, start + _READ_BYTES)).lower().split()
    # A set would be hashed differently in every process; a dict keeps the order of the text.
    count = len(words) - _SHINGLE_WORDS + 1
    return list(dict.fromkeys(b" ".join(words[i : i + _SHINGLE_WORDS]) for i in range(count)))
