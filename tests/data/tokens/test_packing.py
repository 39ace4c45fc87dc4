"""Packed rows: every example whole and apart, every trained token once per epoch, any step computed directly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.data.tokens.coverage import IGNORE_INDEX
from etude.data.tokens.examples import ExampleWriter, open_examples
from etude.data.tokens.packing import PackedLoader, PackedWindows, Packing, pieces_of
from etude.data.tokens.parts import TokenPart
from etude.data.tokens.rows import evaluation_windows, training_rows
from etude.errors import InputError

Turns = list[tuple[int, int]]
"""Of a conversation: (tokens before the answer, tokens of the answer) of each turn. Empty: plain text."""
conversations = st.lists(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=4), min_size=1, max_size=25
)


def part_of(folder: Path, examples: list[Turns], texts: list[int] = ()) -> TokenPart:  # type: ignore[assignment]
    """Return a part whose tokens are 1, 2, 3 ..., with conversations, then plain texts of so many tokens."""
    writer = ExampleWriter(folder, "train")
    offsets, total = [0], 0
    for turns in examples:
        trained, ends = [], []
        for before, answer in turns:
            trained += [False] * before + [True] * answer
            ends.append(len(trained))
        writer.add(np.array(trained), ends, f"<{total}>" + "é" * len(trained), [(1, 3)])
        total += len(trained)
        offsets.append(total)
    for size in texts:
        writer.add(np.ones(size, bool), (), f"text {total}", [(0, 4)])
        total += size
        offsets.append(total)
    writer.close()
    places = np.array(offsets, np.int64)
    marks = np.stack([places, places])
    tokens = np.arange(1, total + 1, dtype=np.uint32)
    return TokenPart([tokens], 0, places, marks, str, open_examples(folder, "train", total, (0,)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("packing")


@given(conversations, st.integers(12, 90))
def test_rows_hold_whole_turns_and_every_trained_token_once(
    folder: Path, examples: list[Turns], context: int
) -> None:
    part = part_of(folder, examples)
    assert part.examples is not None
    fitting = [
        max(
            (end for end in np.cumsum([sum(t) for t in turns]).tolist() if end <= context + 1),
            default=0,
        )
        for turns in examples
    ]
    pieces = pieces_of(part, context)
    assert pieces.dropped == sum(fits == 0 for fits in fitting)
    assert pieces.shortened == sum(
        0 < fits < sum(map(sum, turns)) for fits, turns in zip(fitting, examples, strict=True)
    )
    if not any(fitting):
        with pytest.raises(InputError, match="no trained turn of the training conversations fits"):
            Packing.of(part, context)
        return
    packing = Packing.of(part, context)
    seen: list[int] = []
    for row in range(len(packing.rows)):
        inputs, targets, places, owners = packing.inputs(row)
        real = targets != IGNORE_INDEX
        assert (targets[real] == inputs[real] + 1).all()  # tokens count up, so a target follows its input
        assert (part.window(0, part.num_tokens)[places[real]] == targets[real]).all()
        assert ((owners >= 0) == real).all()
        seen += places[real][part.examples.trained[places[real]]].tolist()
    expected = [
        place
        for number, fits in enumerate(fitting)
        for place in range(part.documents[number] + 1, part.documents[number] + fits)
        if part.examples.trained[place]
    ]
    assert sorted(seen) == expected


@given(conversations, st.integers(1, 5), st.integers(0, 40))
def test_an_epoch_visits_every_row_once(folder: Path, examples: list[Turns], rows: int, seed: int) -> None:
    part = part_of(folder, examples)
    loader = training_rows(part, 80, rows, seed)
    assert isinstance(loader, PackedLoader)
    count = len(loader.packing.rows)
    whole = [loader.slice(step, 0, rows)[0] for step in range(count)]
    first_epoch = np.concatenate(whole)[:count]
    expected = sorted(tuple(packed.tolist()) for packed in loader.packing.batch(np.arange(count))[0])
    assert sorted(map(tuple, first_epoch.tolist())) == expected
    again = training_rows(part, 80, rows, seed)
    for step in range(count):
        halves = [again.slice(step, first, 1)[1] for first in range(rows)]
        assert (np.concatenate(halves) == loader.rows(step)[1]).all()
        assert (loader.document_ids(step) >= 0).sum() == (loader.rows(step)[1] != IGNORE_INDEX).sum()


@given(st.lists(st.integers(2, 200), min_size=1, max_size=6), st.integers(2, 30))
def test_plain_text_continues_in_other_rows(folder: Path, sizes: list[int], context: int) -> None:
    part = part_of(folder, [], sizes)
    pieces = pieces_of(part, context)
    assert (pieces.lengths <= context + 1).all()
    assert pieces.shortened == pieces.dropped == 0
    assert int((pieces.lengths - 1).sum()) == sum(size - 1 for size in sizes)


@given(conversations, st.integers(1, 300))
def test_evaluations_cover_whole_examples(folder: Path, examples: list[Turns], most: int) -> None:
    part = part_of(folder, [*examples, [(20, 90)]])
    windows = evaluation_windows(part, 80, most)
    assert isinstance(windows, PackedWindows)
    assert len(examples) not in windows.numbers  # it does not fit
    total = sum(int((windows.batch(row, 1)[1] != IGNORE_INDEX).sum()) for row in range(len(windows)))
    sizes = np.diff(part.documents)[windows.numbers] - 1
    assert total == windows.num_targets == sizes.sum()
    assert windows.source_bytes == sum(len(text) for text in windows.texts())
    assert windows.num_tokens <= max(most, part.documents[1])


def test_bytes_of_trained_text(folder: Path) -> None:
    part = part_of(folder, [[(1, 1)], [(2, 3)]])
    assert part.examples is not None
    assert part.examples.text(1).decode() == "<2>ééééé"
    assert part.examples.bytes_trained(1).tolist() == [False, True, True] + [False] * 10


@pytest.mark.parametrize("name", ["trained", "turns", "texts", "spans"])
def test_damaged_tables_are_reported(tmp_path: Path, name: str) -> None:
    part = part_of(tmp_path, [[(1, 1)], [(2, 3)]])
    np.save(tmp_path / f"train.{name}.npy", np.array([5, 1], np.int64))
    with pytest.raises(InputError, match="prepare the text again"):
        open_examples(tmp_path, "train", part.num_tokens, (0,))
