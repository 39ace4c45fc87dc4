"""Pack examples whole into rows: rows of training steps, and rows of an evaluation.

An example is never cut inside a turn. One that is longer than a row ends after its last whole turn that fits; plain
text is cut anywhere and continues in another row. Examples share rows without seeing each other: attention stays inside
an example and positions restart, so packing changes the loss only by rounding.

The rows are filled once, best fit first, from the longest example to the shortest (Johnson 1974, "Fast algorithms for
bin packing"). Every epoch visits all rows in another random order, so a batch is a pure function of (seed, step).

A preference is one piece, never cut, so that its two conversations stay in one row. They do not see each other either.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from etude.data.tokens.coverage import IGNORE_INDEX
from etude.data.tokens.examples import ExampleTokens, Mask
from etude.data.tokens.loader import Window
from etude.data.tokens.parts import TokenPart
from etude.data.tokens.permutation import Permutation
from etude.errors import InputError

LONGEST_EXAMPLE = 2048
"""Most tokens in a row where the user leaves train.context open."""
REMEMBERED = 64
"""Filled rows to keep: 64 KiB each at most, for rows of :data:`LONGEST_EXAMPLE` tokens."""
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Pieces:
    """The pieces of a part that go into rows: (N,) index of the first token, number of tokens, and example of each.

    ``shortened`` examples lost their last turns, ``dropped`` ones have no trained turn that fits.
    """

    starts: Int64
    lengths: Int64
    numbers: Int64
    shortened: int
    dropped: int


def pieces_of_example(trained: Mask, turn_ends: Int64 | Sequence[int], context: int) -> list[tuple[int, int]]:
    """Return (first token, number of tokens) of the pieces of an example, each of at most ``context`` + 1 tokens.

    A row of ``context`` tokens has room for one more, because the last is a target only. A conversation is one piece,
    which ends after its last whole turn that fits. Plain text is cut into as many as it needs, each of which begins
    with the last token of the one before. Every piece trains a token: an example without one has no piece.

    Args:
        trained: (tokens,) which of them are trained.
        turn_ends: the numbers of tokens after which the example may end, ascending; empty for plain text.
    """
    size = len(trained)
    if size <= context + 1:
        pieces = [(0, size)]
    elif len(turn_ends):
        fitting = int(np.searchsorted(turn_ends, context + 1, side="right"))
        pieces = [(0, int(turn_ends[fitting - 1]))] if fitting else []
    else:
        pieces = [(start, min(context + 1, size - start)) for start in range(0, size - 1, context)]
    return [(start, length) for start, length in pieces if trained[start + 1 : start + length].any()]


def pieces_of(
    part: TokenPart, context: int, *, whole: bool = False, most_tokens: int | None = None
) -> Pieces:
    """Return the pieces of the examples of a part (:func:`pieces_of_example`).

    Args:
        whole: drop the examples that would be shortened.
        most_tokens: use only the first examples that have about as many tokens, and at least one.
    """
    examples = _examples(part)
    turns = np.searchsorted(examples.turns, part.documents, side="right")
    found: list[tuple[int, int, int]] = []
    shortened = dropped = 0
    for number in range(part.num_documents):
        begin, end = int(part.documents[number]), int(part.documents[number + 1])
        if most_tokens is not None and found and end > most_tokens:
            break
        turn_ends = examples.turns[turns[number] : turns[number + 1]] - begin
        pieces = pieces_of_example(examples.trained[begin:end], turn_ends, context)
        ends_early = bool(pieces) and sum(pieces[-1]) < end - begin
        if whole and ends_early:
            pieces, ends_early = [], False
        found += [(begin + start, length, number) for start, length in pieces]
        dropped += not pieces
        shortened += ends_early
    starts, lengths, numbers = np.array(found, np.int64).reshape(-1, 3).T
    return Pieces(starts, lengths, numbers, shortened, dropped)


def num_trained(part: TokenPart, pieces: Pieces) -> int:
    """Return the number of tokens in the pieces of ``part`` that are trained."""
    return int(trained_in_pieces(part, pieces).sum())


def trained_in_pieces(part: TokenPart, pieces: Pieces) -> Int64:
    """Return (N,) the number of trained tokens in each piece of ``part``."""
    trained, places = _examples(part).trained, zip(pieces.starts, pieces.lengths, strict=True)
    return np.array([trained[start + 1 : start + length].sum() for start, length in places], np.int64)


def _examples(part: TokenPart) -> ExampleTokens:
    if part.examples is None:
        raise ValueError("packing needs to know which tokens are trained")
    return part.examples


@dataclass(frozen=True, eq=False)
class Packing:
    """Rows of ``context`` tokens, filled with pieces.

    Attributes:
        rows: the pieces of each row, by their number, in the order of their places.
    """

    part: TokenPart
    context: int
    pieces: Pieces
    rows: tuple[tuple[int, ...], ...]

    @classmethod
    def of(
        cls, part: TokenPart, context: int, *, whole: bool = False, most_tokens: int | None = None
    ) -> Packing:
        """Fill rows with the pieces of ``part`` (:func:`pieces_of`).

        Raises:
            InputError: no example fits into a row.
        """
        pieces = pieces_of(part, context, whole=whole, most_tokens=most_tokens)
        if not len(pieces.starts):
            part_name = "held-out" if whole else "training"
            raise InputError(
                f"no trained turn of the {part_name} conversations fits into {context} tokens: use "
                "a longer context (--set train.context, up to the positions of the model), or shorter conversations"
            )
        return cls(part, context, pieces, _best_fit((pieces.lengths - 1).tolist(), context))

    def inputs(self, row: int) -> tuple[Int64, Int64, Int64, Int64]:
        """Return (inputs, targets, index of each target in the part, number of each piece), each (T,).

        Each conversation of a preference has a number of its own. After the last piece, inputs are the token that
        begins documents, targets :data:`IGNORE_INDEX`, and places 0.
        Targets that are not trained are those of the text: the loss mask is the caller's. Do not change the arrays.
        """
        return self._remembered(row)

    @cached_property
    def _remembered(self) -> Callable[[int], tuple[Int64, Int64, Int64, Int64]]:
        # A batch asks for inputs, places and pieces of the same rows one after the other.
        return lru_cache(REMEMBERED)(self._fill)

    def _fill(self, row: int) -> tuple[Int64, Int64, Int64, Int64]:
        count = self.context
        inputs = np.full(count, self.part.document_id, np.int64)
        targets = np.full(count, IGNORE_INDEX, np.int64)
        places, owners = np.zeros(count, np.int64), np.full(count, -1, np.int64)
        rejected = _examples(self.part).rejected
        at = 0
        for piece in self.rows[row]:
            start, length = int(self.pieces.starts[piece]), int(self.pieces.lengths[piece])
            tokens = self.part.window(start, length)
            until = at + length - 1  # the last token is a target only
            inputs[at:until], targets[at:until] = tokens[:-1], tokens[1:]
            places[at:until], owners[at:until] = np.arange(start + 1, start + length), piece
            if rejected is not None:
                second = int(rejected[self.pieces.numbers[piece]]) - start
                owners[at:until] = 2 * piece + (np.arange(length - 1) >= second)
            at = until
        return inputs, targets, places, owners

    def stacked(self, rows: Int64, which: int) -> Int64:
        """Return (len(rows), T) of one of the four arrays of :meth:`inputs`."""
        return np.stack([self.inputs(row)[which] for row in rows.tolist()])

    def batch(self, rows: Int64) -> tuple[Int64, Int64]:
        """Return (inputs, targets) of rows, each (len(rows), T)."""
        made = [self.inputs(row) for row in rows.tolist()]
        return np.stack([row[0] for row in made]), np.stack([row[1] for row in made])

    def pairs(self, rows: Int64) -> tuple[Int64, Int64]:
        """Return the preferences in rows, in order: their numbers (P,), and their trained tokens (P, 2).

        The first column counts those of the chosen answer, the second those of the rejected one.
        """
        examples = _examples(self.part)
        assert examples.rejected is not None, "pairs are preferences"
        numbers = np.array([n for row in rows.tolist() for n in self.examples_in(row)], np.int64)
        counts = np.empty((len(numbers), 2), np.int64)
        for pair, number in enumerate(numbers.tolist()):
            begin, end = int(self.part.documents[number]), int(self.part.documents[number + 1])
            second = int(examples.rejected[number])
            counts[pair] = examples.trained[begin + 1 : second].sum(), examples.trained[second:end].sum()
        return numbers, counts

    def examples_in(self, row: int) -> list[int]:
        """Return the numbers of the examples in a row."""
        return [int(self.pieces.numbers[piece]) for piece in self.rows[row]]


@lru_cache(2)
def training_rows(part: TokenPart, context: int) -> Packing:
    """Return the rows of ``part`` for training steps. The plan of a run and its batches share them."""
    return Packing.of(part, context)


def _best_fit(sizes: list[int], capacity: int) -> tuple[tuple[int, ...], ...]:
    """Assign every size to a row, from the largest on, each to the row with the least room that holds it."""
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (room, row), ascending
    for number in sorted(range(len(sizes)), key=lambda number: (-sizes[number], number)):
        size = sizes[number]
        at = bisect_left(room, (size, -1))
        if at == len(room):
            row, left = len(rows), capacity
            rows.append([])
        else:
            left, row = room.pop(at)
        rows[row].append(number)
        if left - size > 0:
            insort(room, (left - size, row))
    return tuple(map(tuple, rows))


class PackedLoader:
    """The rows of training steps, as those of :class:`etude.data.tokens.loader.BatchLoader`, from whole examples."""

    def __init__(self, part: TokenPart, context: int, batch_rows: int, seed: int) -> None:
        self.part, self.context, self.batch_rows, self.seed = part, context, batch_rows, seed
        self.packing = training_rows(part, context)

    def rows(self, step: int) -> tuple[Int64, Int64]:
        """Return (inputs, targets), each (B, T): the whole batch of a step (steps count from 0)."""
        return self.slice(step, 0, self.batch_rows)

    def slice(self, step: int, first_row: int, num_rows: int) -> tuple[Int64, Int64]:
        """Return rows [first_row, first_row + num_rows) of the batch of ``step``: (inputs, targets), each (rows, T)."""
        return self.packing.batch(self._packed(step, first_row, num_rows)[1])

    def target_places(self, step: int, first_row: int, num_rows: int) -> Int64:
        """Return (num_rows, T) the index of every target in the part; 0 where there is none."""
        return self.packing.stacked(self._packed(step, first_row, num_rows)[1], 2)

    def document_ids(self, step: int, first_row: int = 0, num_rows: int | None = None) -> Int64:
        """Return (num_rows, T) the piece of every input token, -1 after the last, for attention limited to them."""
        count = self.batch_rows - first_row if num_rows is None else num_rows
        return self.packing.stacked(self._packed(step, first_row, count)[1], 3)

    def pairs(self, step: int, first_row: int, num_rows: int) -> tuple[Int64, Int64]:
        """Return :meth:`Packing.pairs` of rows of a step."""
        return self.packing.pairs(self._packed(step, first_row, num_rows)[1])

    def share_of(self, chosen: Mask) -> Callable[[int], float]:
        """Return a function of the step: the share of its trained tokens that are of the ``chosen`` examples."""
        packing = self.packing
        counts = trained_in_pieces(self.part, packing.pieces)
        both = np.stack([counts, counts * chosen[packing.pieces.numbers]])
        in_rows = np.stack([both[:, list(row)].sum(1) for row in packing.rows])  # (rows, 2)

        def share(step: int) -> float:
            every, own = in_rows[self._packed(step, 0, self.batch_rows)[1]].sum(0).tolist()
            return float(own / every) if every else 0.0

        return share

    def windows_at(self, step: int) -> list[Window]:
        """Describe every row of a step, for reports."""
        epochs, rows = self._packed(step, 0, self.batch_rows)
        described = []
        for place, (epoch, row) in enumerate(zip(epochs.tolist(), rows.tolist(), strict=True)):
            names = tuple(self.part.namer(number) for number in self.packing.examples_in(row))
            start = int(self.packing.pieces.starts[self.packing.rows[row][0]])
            described.append(Window(place, epoch, start, tuple(dict.fromkeys(names))))
        return described

    def _packed(self, step: int, first_row: int, num_rows: int) -> tuple[Int64, Int64]:
        """Return (epoch, packed row) of rows of a step."""
        if step < 0 or first_row < 0 or num_rows < 0 or first_row + num_rows > self.batch_rows:
            raise ValueError(f"rows {first_row}..{first_row + num_rows} of step {step} are not in the batch")
        count = len(self.packing.rows)
        serial = step * self.batch_rows + first_row + np.arange(num_rows, dtype=np.int64)
        epochs, rows = serial // count, np.empty(num_rows, np.int64)
        for epoch in np.unique(epochs).tolist():
            in_epoch = epochs == epoch
            rows[in_epoch] = Permutation(count, self.seed, epoch)(serial[in_epoch] % count)
        return epochs, rows


class PackedWindows:
    """The rows of an evaluation, as :class:`etude.data.tokens.coverage.EvaluationWindows`, from whole examples.

    Attributes:
        numbers: the examples in the rows, ascending. Those that do not fit into a row whole are not among them, so that
            the network and the n-gram models are scored on the same text.
        num_tokens: tokens of the first examples, up to the last one in the rows.
        num_targets: targets, trained or not.
    """

    def __init__(self, part: TokenPart, context: int, max_tokens: int | None = None) -> None:
        self.part, self.context = part, context
        self.packing = Packing.of(part, context, whole=True, most_tokens=max_tokens)
        pieces = self.packing.pieces
        self.numbers: list[int] = np.unique(pieces.numbers).tolist()
        self.num_tokens = int(part.documents[self.numbers[-1] + 1])
        self.num_targets = int((pieces.lengths - 1).sum())

    @property
    def source_bytes(self) -> int:
        """UTF-8 bytes of the rendered texts in the rows."""
        return int(np.diff(_examples(self.part).texts)[self.numbers].sum())

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.packing.rows)

    def batch(self, first: int, count: int) -> tuple[Int64, Int64]:
        """Return rows [first, first + count) as (inputs, targets), each (rows, T)."""
        return self.packing.batch(self._rows(first, count))

    def target_places(self, first: int, count: int) -> Int64:
        """Return the index (rows, T) of every target in the part; 0 where there is none."""
        return self.packing.stacked(self._rows(first, count), 2)

    def document_ids(self, first: int, count: int) -> Int64:
        """Return (rows, T) the piece of every input token, -1 after the last."""
        return self.packing.stacked(self._rows(first, count), 3)

    def texts(self) -> Iterator[bytes]:
        """Yield the rendered texts of the examples in the rows."""
        return (_examples(self.part).text(number) for number in self.numbers)

    def _rows(self, first: int, count: int) -> Int64:
        return np.arange(first, min(first + count, len(self)), dtype=np.int64)
