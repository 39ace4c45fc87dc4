"""Repeated documents: exact copies at any size, near copies by MinHash where memory and time are bounded.

Exact copies are found by sorting the store's 64-bit content hashes, which takes 24 bytes per document. Among ten
million different documents, two share a hash with a probability of about 3 in a million.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt

from etude.data.corpus.store import TextStore

NEAR_MAX_BYTES = 32_000_000
NEAR_MAX_DOCUMENTS = 50_000
"""Near copies are not searched for above either limit: an index of 50,000 documents takes about 150 MB."""
NEAR_SIMILARITY = 0.8
"""Documents are near copies when they share at least this part of their 5-word sequences (Jaccard, estimated).

In scripts without spaces, each character counts as a word.
"""
_SHINGLE_WORDS = 5
SHORT_WORDS = 100
"""Shorter documents are near copies only if their numbers agree: rows of a table may differ in nothing else."""
_PERMUTATIONS = 64
_READ_BYTES = 200_000
"""Longer documents are compared by their beginning."""

_LONG_WORD = 20
_NUMBER = re.compile(r"\d+")
_SCRIPTS = (
    "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u1950-\u19ff\u1a20-\u1aaf\u1b00-\u1b7f\ua980-\ua9df\uaa00-\uaadf"
    "\u2e80-\u2fdf\u3005-\u3007\u3040-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua000-\ua4cf"
    "\uf900-\ufaff\uff66-\uff9f\U0001b000-\U0001b2ff\U00020000-\U0003ffff"
)
"""Thai, Lao, Tibetan, Burmese, Khmer, Tai, Balinese, Javanese, Cham; Chinese, Japanese and Yi."""
_SPACELESS = re.compile(f"[{_SCRIPTS}]")
_WORD = re.compile(rf"[{_SCRIPTS}]|[^\s{_SCRIPTS}]+")

Mask = npt.NDArray[np.bool_]
Progress = Callable[[str, int, int | None], None]


def exact_copies(hashes: npt.NDArray[np.uint64]) -> Mask:
    """Return (documents,) True for every document that repeats an earlier one."""
    order = np.argsort(hashes, kind="stable")
    ranked = hashes[order]
    copies = np.zeros(len(hashes), bool)
    copies[order[1:]] = ranked[1:] == ranked[:-1]
    return copies


def near_too_large(num_documents: int, num_bytes: int) -> str:
    """Return why near copies are not searched for in a corpus of this size; empty when they are."""
    if num_documents > NEAR_MAX_DOCUMENTS or num_bytes > NEAR_MAX_BYTES:
        return (
            f"near copies were not searched for: the corpus is above {NEAR_MAX_BYTES // 1_000_000} MB "
            f"or {NEAR_MAX_DOCUMENTS:,} documents; exact copies were"
        )
    return ""


def near_copies(store: TextStore, kept: Mask, progress: Progress | None = None) -> Mask:
    """Return (documents,) True for every kept document that nearly repeats an earlier kept one.

    MinHash (Broder 1997) with locality-sensitive hashing, from the ``datasketch`` library. The first of several near
    copies stays.
    """
    index = NearIndex()
    copies = np.zeros(store.num_documents, bool)
    for number in np.flatnonzero(kept).tolist():
        if progress is not None and number % 256 == 0:
            progress("find near copies", int(store.offsets[number]), int(store.offsets[-1]))
        start, end = int(store.offsets[number]), int(store.offsets[number + 1])
        text = store.read(start, min(end, start + _READ_BYTES)).decode("utf-8", "ignore")
        copies[number] = bool(index.similar(text, number, only_new=True))
    return copies


class NearIndex:
    """Texts by which near copies are found."""

    def __init__(self) -> None:
        from datasketch import MinHash, MinHashLSH

        def new_index() -> tuple[MinHashLSH, dict[int, MinHash]]:
            return MinHashLSH(threshold=NEAR_SIMILARITY, num_perm=_PERMUTATIONS), {}

        self._new_signature = partial(MinHash, num_perm=_PERMUTATIONS, seed=1)
        self._indexes = {salted: new_index() for salted in (True, False)}

    def similar(self, text: str, number: int, *, only_new: bool = False) -> list[int]:
        """Return the numbers of the texts of which ``text`` is a near copy, and add it under ``number``.

        With ``only_new``, a text that is a near copy is not added.
        """
        signed, found = [], set()
        for salted, shingles in shingle_sets(text):
            signature = self._new_signature()
            signature.update_batch(shingles)
            index, signatures = self._indexes[salted]
            near = index.query(signature)
            found |= {other for other in near if signature.jaccard(signatures[other]) >= NEAR_SIMILARITY}
            signed.append((index, signatures, signature))
        if not (found and only_new):
            for index, signatures, signature in signed:
                index.insert(number, signature, check_duplication=False)
                signatures[number] = signature
        return sorted(found)


def shingle_sets(text: str) -> list[tuple[bool, list[bytes]]]:
    """Return the sets by which a document is compared: (whether its numbers are included, distinct word sequences).

    The sequences of a short document include its numbers, so that two documents with different numbers share none. A
    slightly longer document may be a near copy of either kind and gets both sets. One that is too short for a
    sequence gets none.
    """
    words = _words(text)
    count = len(words) - _SHINGLE_WORDS + 1
    if count < 1:
        return []
    # The order of a set differs between processes; a dict keeps the order of the text.
    plain = list(dict.fromkeys(" ".join(words[i : i + _SHINGLE_WORDS]).encode() for i in range(count)))
    sets = []
    if len(words) <= SHORT_WORDS / NEAR_SIMILARITY:
        numbers = " ".join(_NUMBER.findall(text)).encode()
        sets.append((True, [numbers + b"|" + words_of for words_of in plain] if numbers else plain))
    if len(words) > SHORT_WORDS:
        sets.append((False, plain))
    return sets


def _words(text: str) -> list[str]:
    """Return the words; in scripts without spaces, and in text with almost no spaces, the characters."""
    folded = text.lower()
    words = _WORD.findall(folded) if not folded.isascii() and _SPACELESS.search(folded) else folded.split()
    if len(words) < _SHINGLE_WORDS and len(folded) >= _SHINGLE_WORDS * _LONG_WORD:
        return list("".join(words))
    return words
