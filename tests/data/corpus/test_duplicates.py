"""Exact and near copies."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np

from etude.data.corpus import duplicates
from etude.data.corpus.duplicates import exact_copies, near_copies, near_too_large
from etude.data.corpus.store import StoreWriter, TextStore


def stored(folder: Path, texts: list[str]) -> TextStore:
    writer = StoreWriter(folder)
    for number, text in enumerate(texts):
        writer.begin(str(number), "test")
        writer.add(text)
    writer.close()
    return TextStore(folder)


def sentences(rng: random.Random, words: int) -> list[str]:
    return [f"word{rng.randrange(500)}" for _ in range(words)]


def test_the_first_of_equal_documents_stays(tmp_path: Path) -> None:
    rng = random.Random(1)
    texts = [rng.choice("abcdefghij") * rng.randrange(1, 4) for _ in range(200)]
    copies = exact_copies(np.asarray(stored(tmp_path, texts).hashes))
    seen: set[str] = set()
    for text, copy in zip(texts, copies, strict=True):
        assert copy == (text in seen)
        seen.add(text)


def test_near_copies_are_found_and_the_rest_kept(tmp_path: Path) -> None:
    rng = random.Random(2)
    originals = [sentences(rng, 200) for _ in range(60)]
    changed = [list(words) for words in originals[:20]]
    for words in changed:
        words[rng.randrange(200)] = "other"  # 5 of 196 sequences differ: Jaccard 0.95
    halves = [words[:100] + sentences(rng, 100) for words in originals[20:30]]  # Jaccard about a third
    texts = [" ".join(words) for words in [*originals, *changed, *halves]]
    copies = near_copies(stored(tmp_path, texts), np.ones(len(texts), bool))
    assert not copies[:60].any()
    assert copies[60:80].sum() >= 19
    assert not copies[80:].any()


def test_documents_already_dropped_are_not_compared(tmp_path: Path) -> None:
    text = " ".join(sentences(random.Random(3), 100))
    kept = np.array([False, True, True])
    assert near_copies(stored(tmp_path, [text, text + " end", text]), kept).tolist() == [False, False, True]


def test_short_documents_are_left_to_the_exact_comparison(tmp_path: Path) -> None:
    assert not near_copies(stored(tmp_path, ["yes sir", "yes sir", "no"]), np.ones(3, bool)).any()


def test_a_large_corpus_is_told() -> None:
    assert near_too_large(10, 1000) == ""
    assert "32 MB" in near_too_large(10, duplicates.NEAR_MAX_BYTES + 1)
    assert "50,000" in near_too_large(duplicates.NEAR_MAX_DOCUMENTS + 1, 1000)
