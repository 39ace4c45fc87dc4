"""Longest verbatim runs, against brute force, and with a copy planted."""

from __future__ import annotations

import random
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.evaluate.memorisation import Run, longest_runs, memorisation


def brute_force(train: list[bytes], text: bytes) -> Run:
    for length in range(len(text), 0, -1):
        for start in range(len(text) - length + 1):
            if any(text[start : start + length] in document for document in train):
                return Run(start, start + length)
    return Run(0, 0)


few = st.lists(st.text("ab\x00", max_size=14).map(str.encode), max_size=5)


@given(few, few)
def test_runs_are_those_of_brute_force(train: list[bytes], texts: list[bytes]) -> None:
    assert longest_runs(train, texts) == [brute_force(train, text) for text in texts]


@given(st.integers(0, 10**6))
def test_runs_are_those_of_brute_force_in_longer_texts(seed: int) -> None:
    rng = random.Random(seed)
    train = [bytes(rng.choices(b"abc", k=60)) for _ in range(3)]
    texts = [bytes(rng.choices(b"abc", k=25)) for _ in range(4)]
    texts.append(texts[0][5:] + train[0][:9])
    assert longest_runs(train, texts) == [brute_force(train, text) for text in texts]


def test_a_planted_copy_is_found_exactly() -> None:
    rng = random.Random(1)
    train = [bytes(rng.choices(range(97, 123), k=20_000)) for _ in range(3)]
    copied = train[1][7_000:7_061]
    sample = b"0" * 20 + copied + b"1" * 20
    assert longest_runs(train, [sample]) == [Run(20, 81)]
    assert longest_runs([train[1][:7_030], train[1][7_030:]], [sample]) == [
        Run(50, 81)
    ]  # not across documents
    assert Run(20, 81).of(sample.decode()) == copied.decode()


def test_samples_are_held_against_passages_of_equal_length() -> None:
    rng = random.Random(2)

    def letters(count: int) -> str:
        return "".join(rng.choices("abcdefgh", k=count))

    train = [letters(5_000) for _ in range(4)]
    encoded = [one.encode() for one in train]
    held_out = [letters(200) for _ in range(20)]
    copies = [letters(80) + train[at % 4][at * 100 : at * 100 + 60] + letters(500) for at in range(20)]
    fresh = [letters(640) for _ in range(20)]
    copied, new = memorisation(encoded, copies, held_out), memorisation(encoded, fresh, held_out)
    assert copied.beyond == 1.0
    assert copied.excess.interval.low > 40
    assert all(run.start <= 80 and run.end >= 140 for run in copied.samples)
    assert new.beyond < 0.5
    assert new.excess.interval.holds(0.0)
    assert all(run.end <= 200 for run in (*new.samples, *copied.samples))
    with pytest.raises(ValueError, match="held-out passage"):
        memorisation(encoded, ["a"], [])


def test_memory_is_bounded_by_the_texts() -> None:
    rng = random.Random(3)
    sample = bytes(rng.choices(b"abcdefgh", k=300))
    piece = bytes(rng.choices(b"abcdefgh", k=10_000))
    peaks = []
    for count in (2, 16):
        tracemalloc.start()
        longest_runs((piece[at:] for at in range(count)), [sample])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]
