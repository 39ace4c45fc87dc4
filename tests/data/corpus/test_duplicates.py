"""Exact and near copies."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from etude.data.corpus import duplicates
from etude.data.corpus.duplicates import SHORT_WORDS, exact_copies, near_copies, near_too_large
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


SPACELESS = {
    "Chinese": "".join(map(chr, range(0x4E00, 0x4E00 + 400))) + "。",
    "Japanese": "".join(map(chr, [*range(0x3041, 0x3097), *range(0x4E00, 0x4E00 + 200)])),
    "Thai": "".join(map(chr, [*range(0x0E01, 0x0E2F), *range(0x0E30, 0x0E3A)])),
    "Khmer": "".join(map(chr, range(0x1780, 0x17B4))),
}


@pytest.mark.parametrize("script", list(SPACELESS))
def test_near_copies_are_found_in_writing_without_spaces(tmp_path: Path, script: str) -> None:
    rng = random.Random(script)
    originals = ["".join(rng.choices(SPACELESS[script], k=400)) for _ in range(20)]
    changed = [text[:200] + "X" + text[201:] for text in originals[:10]]  # at most 5 of 396 sequences differ
    halves = [text[:200] + "".join(rng.choices(SPACELESS[script], k=200)) for text in originals[10:]]
    copies = near_copies(stored(tmp_path, [*originals, *changed, *halves]), np.ones(40, bool))
    assert not copies[:20].any()
    assert copies[20:30].sum() >= 9
    assert not copies[30:].any()


def test_one_long_word_is_compared_by_its_characters(tmp_path: Path) -> None:
    rng = random.Random(5)
    genome = "".join(rng.choices("ACGT", k=2000))
    other = "".join(rng.choices("ACGT", k=2000))
    store = stored(tmp_path, [genome, genome[:-1], other])
    # With so few letters, all sequences of five occur everywhere, so such texts cannot be told apart.
    assert near_copies(store, np.ones(3, bool))[1]


ROW = (
    "Gauge {} on the upper weir was read at dawn by the keeper, who found the water clear and the float free, and "
    "wrote down a level of {} above the mark before the sluice was opened for the mill"
)


def test_short_rows_that_differ_in_one_number_are_no_copies(tmp_path: Path) -> None:
    rows = [ROW.format(number, 40) for number in range(50)] + [ROW.format(0, number) for number in range(50)]
    rows += [ROW.format(7, 40) + " wheel"]  # the same numbers, and nearly the same words as the eighth
    rows = list(dict.fromkeys(rows))
    copies = near_copies(stored(tmp_path, rows), np.ones(len(rows), bool))
    assert np.flatnonzero(copies).tolist() == [len(rows) - 1]


@pytest.mark.parametrize("words", [SHORT_WORDS - 3, SHORT_WORDS - 1, SHORT_WORDS, SHORT_WORDS + 20, 400])
def test_length_makes_no_gap_between_short_and_long(tmp_path: Path, words: int) -> None:
    text = sentences(random.Random(6), words)
    plain = " ".join(
        word.replace("0", "zero").translate(str.maketrans("123456789", "abcdefghi")) for word in text
    )
    texts = [plain, plain + " and two", "other words before it " * 9]
    texts.append(plain.replace(" ", " 17 ", 1))
    copies = near_copies(stored(tmp_path, texts), np.ones(4, bool)).tolist()
    assert copies[:3] == [False, True, False]
    assert copies[3] == (words > SHORT_WORDS)  # one number more: in a short document that is another row


def test_documents_already_dropped_are_not_compared(tmp_path: Path) -> None:
    text = " ".join(sentences(random.Random(3), 100))
    kept = np.array([False, True, True])
    assert near_copies(stored(tmp_path, [text, text + " end", text]), kept).tolist() == [False, False, True]


def test_short_documents_are_left_to_the_exact_comparison(tmp_path: Path) -> None:
    assert not near_copies(stored(tmp_path, ["yes sir", "yes sir", "no"]), np.ones(3, bool)).any()


def test_a_large_corpus_is_reported() -> None:
    assert near_too_large(10, 1000) == ""
    assert "32 MB" in near_too_large(10, duplicates.NEAR_MAX_BYTES + 1)
    assert "50,000" in near_too_large(duplicates.NEAR_MAX_DOCUMENTS + 1, 1000)
