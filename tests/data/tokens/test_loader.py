"""A batch is a pure function of (seed, step), and an epoch is a permutation."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.data.tokens.coverage import IGNORE_INDEX, EvaluationWindows, is_text
from etude.data.tokens.loader import BatchLoader
from etude.data.tokens.parts import TokenPart
from etude.data.tokens.permutation import Permutation
from etude.data.tokens.rows import evaluation_windows
from etude.errors import InputError


def part_of(tokens: int, seed: int = 0, longest: int = 40) -> TokenPart:
    """Make documents whose tokens equal their position, so that a row shows where it was cut."""
    rng = random.Random(seed)
    documents, place = [], 0
    while place < tokens:
        size = min(rng.randrange(1, longest), max(tokens - place - 1, 1))
        documents.append(list(range(place + 1, place + 1 + size)))
        place += size + 1
    return TokenPart.from_documents(documents, 0)


@given(st.integers(1, 3000), st.integers(0, 2**40), st.integers(0, 100))
def test_a_permutation_hits_everything_once(size: int, seed: int, epoch: int) -> None:
    image = Permutation(size, seed, epoch)(np.arange(size))
    assert np.array_equal(np.sort(image), np.arange(size))


def test_permutations_look_random() -> None:
    """Over many keys, every position receives every element equally often (chi-square, 48 degrees of freedom)."""
    counts = np.zeros((7, 7))
    for key in range(1400):
        counts[np.arange(7), Permutation(7, key)(np.arange(7))] += 1
    assert ((counts - 200) ** 2 / 200).sum() < 85  # p = 0.0008
    image = Permutation(100_000, 1, 2)(np.arange(100_000))
    assert abs(np.corrcoef(np.arange(100_000), image)[0, 1]) < 0.01
    assert np.mean(np.abs(np.diff(image)) < 1000) < 0.03


def test_a_permutation_of_billions_needs_no_memory() -> None:
    order = Permutation(10**12, 5)
    image = order(np.arange(10**12 - 1000, 10**12))
    assert len(np.unique(image)) == 1000
    assert image.min() >= 0
    assert image.max() < 10**12


@settings(max_examples=60)
@given(st.integers(30, 900), st.integers(2, 25), st.integers(1, 9), st.integers(0, 5), st.integers(0, 3))
def test_every_window_comes_exactly_once_an_epoch(
    tokens: int, context: int, rows: int, seed: int, epoch: int
) -> None:
    part = part_of(tokens)
    loader = BatchLoader(part, context, rows, seed)
    count = loader.windows_per_epoch
    first, last = (
        epoch * count,
        (epoch + 1) * count,
    )  # rows of this epoch, counted from the beginning of training
    starts = [
        window.start
        for step in range(first // rows, -(-last // rows))
        for window in loader.windows_at(step)
        if window.epoch == epoch
    ]
    assert len(starts) == count == part.num_tokens // context
    places = Counter((start + offset) % part.num_tokens for start in starts for offset in range(context))
    assert set(places.values()) == {1}
    assert part.num_tokens - len(places) < context


def test_rows_are_shifted_windows_of_the_text() -> None:
    part = part_of(500)
    stream = part.window(0, part.num_tokens)
    loader = BatchLoader(part, 16, 6, seed=3)
    for step in range(30):
        inputs, targets = loader.rows(step)
        assert inputs.shape == targets.shape == (6, 16)
        assert inputs.dtype == targets.dtype == np.int64
        assert np.array_equal(inputs[:, 1:], targets[:, :-1])
        for row, window in enumerate(loader.windows_at(step)):
            assert np.array_equal(
                inputs[row], np.take(stream, range(window.start, window.start + 16), mode="wrap")
            )
            after = (window.start + 16) % part.num_tokens
            assert targets[row, -1] == stream[after]


@given(st.integers(0, 10**6), st.integers(1, 12), st.data())
def test_slices_make_up_the_batch(step: int, rows: int, data: st.DataObject) -> None:
    loader = BatchLoader(part_of(300), 8, rows, seed=1)
    inputs, targets = loader.rows(step)
    cuts = sorted({0, rows, *data.draw(st.lists(st.integers(0, rows), max_size=4))})
    parts = [loader.slice(step, a, b - a) for a, b in itertools.pairwise(cuts)]
    assert np.array_equal(np.concatenate([a for a, _ in parts]), inputs)
    assert np.array_equal(np.concatenate([b for _, b in parts]), targets)
    ids = [loader.document_ids(step, a, b - a) for a, b in itertools.pairwise(cuts)]
    assert np.array_equal(np.concatenate(ids), loader.document_ids(step))


def test_the_same_seed_gives_the_same_rows_and_another_does_not() -> None:
    part = part_of(3000)
    first, again, other = (BatchLoader(part, 16, 8, seed) for seed in (1, 1, 2))
    assert np.array_equal(first.rows(10**9)[0], again.rows(10**9)[0])
    assert not np.array_equal(first.rows(0)[0], other.rows(0)[0])


def test_epochs_are_cut_and_ordered_differently() -> None:
    loader = BatchLoader(part_of(3000), 16, 1, seed=1)
    count = loader.windows_per_epoch
    starts = [[loader.windows_at(epoch * count + n)[0].start for n in range(count)] for epoch in range(3)]
    assert len({tuple(one) for one in starts}) == 3
    assert len({one[0] % 16 for one in starts} | {one[5] % 16 for one in starts}) > 1


def test_document_ids_name_the_document_of_every_input() -> None:
    part = part_of(400)
    loader = BatchLoader(part, 12, 5, seed=2)
    for step in range(20):
        inputs, _ = loader.rows(step)
        ids = loader.document_ids(step)
        windows = loader.windows_at(step)
        assert ids.shape == inputs.shape
        # eos begins a document: the number changes exactly there.
        changed = np.diff(ids, axis=1) != 0
        assert np.array_equal(changed, inputs[:, 1:] == 0)
        for row, window in enumerate(windows):
            assert window.documents == tuple(str(n) for n in dict.fromkeys(ids[row].tolist()))


def test_too_little_text_says_what_to_do() -> None:
    part = part_of(20)
    with pytest.raises(InputError, match=r"shorter context, such as --set train\.context=\d+, or more text"):
        BatchLoader(part, part.num_tokens, 4, 0)
    BatchLoader(part, part.num_tokens - 1, 4, 0).rows(0)


@given(st.integers(2, 400), st.integers(1, 40), st.integers(1, 7))
def test_an_evaluation_covers_every_token_once(tokens: int, context: int, rows: int) -> None:
    part = part_of(tokens)
    stream = part.window(0, part.num_tokens)
    windows = evaluation_windows(part, context)
    batches = [windows.batch(first, rows) for first in range(0, len(windows), rows)]
    inputs = np.concatenate([a for a, _ in batches])
    targets = np.concatenate([b for _, b in batches])
    real = targets != IGNORE_INDEX
    assert len(inputs) == len(windows)
    assert np.array_equal(targets[real], stream[1:])
    assert np.array_equal(inputs[real], stream[:-1])
    assert not real.ravel()[windows.num_targets :].any()
    assert windows.num_targets == part.num_tokens - 1
    assert is_text(targets, (part.document_id,)).sum() == part.num_tokens - part.num_documents
    assert windows.source_bytes == part.source_bytes
    ids = windows.document_ids(0, len(windows)).ravel()[: windows.num_targets]
    assert ids.tolist() == [part.document_number(n) for n in range(part.num_tokens - 1)]


@given(st.integers(50, 400), st.integers(1, 40), st.integers(1, 500))
def test_a_limited_evaluation_counts_exactly_its_bytes(tokens: int, context: int, limit: int) -> None:
    part = part_of(tokens)
    windows = EvaluationWindows(part, context, limit)
    _, targets = windows.batch(0, len(windows))
    text = int(is_text(targets, (part.document_id,)).sum())
    assert windows.source_bytes == text  # from_documents counts one byte per token
    assert windows.num_tokens <= max(limit, int(part.documents[1]))
    if windows.num_tokens < part.num_tokens:
        following = part.documents[np.searchsorted(part.documents, windows.num_tokens) + 1]
        assert following > limit or windows.num_tokens > limit
