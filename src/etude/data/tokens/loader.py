"""The rows of a training step, as a pure function of (seed, step).

The tokens are read as a ring. In every epoch the ring is cut into windows of T + 1 tokens at stride T, from an offset
that differs between epochs, and the windows are visited in a random order (:mod:`etude.data.tokens.permutation`). So
every window comes exactly once per epoch, any step is computed directly, and there is no state: ranks and micro-batches
take their slice of the same batch, and a resumed run needs only the number of its step.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from etude.data.tokens.parts import TokenPart
from etude.data.tokens.permutation import Permutation
from etude.errors import InputError

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Window:
    """The origin of a row of a batch: the index of its first token, its epoch, and the documents it touches."""

    row: int
    epoch: int
    start: int
    documents: tuple[str, ...]


class BatchLoader:
    """Batches of ``batch_rows`` rows of ``context`` tokens.

    Raises:
        InputError: the part has fewer tokens than one window.
    """

    def __init__(self, part: TokenPart, context: int, batch_rows: int, seed: int) -> None:
        if part.num_tokens < context + 1:
            raise InputError(
                f"the training text has only {part.num_tokens:,} tokens, fewer than one row of {context + 1}: "
                f"use a shorter context, such as --set train.context={max(2, part.num_tokens // 4)}, or more text"
            )
        self.part = part
        self.context = context
        self.batch_rows = batch_rows
        self.seed = seed

    @property
    def windows_per_epoch(self) -> int:
        """Rows until every window has come once; up to T - 1 tokens of an epoch are in no window."""
        return self.part.num_tokens // self.context

    def rows(self, step: int) -> tuple[Int64, Int64]:
        """Return (inputs, targets), each (B, T): the whole batch of a step (steps count from 0)."""
        return self.slice(step, 0, self.batch_rows)

    def slice(self, step: int, first_row: int, num_rows: int) -> tuple[Int64, Int64]:
        """Return rows [first_row, first_row + num_rows) of the batch of ``step``: (inputs, targets), each (rows, T)."""
        _, starts = self._starts(step, first_row, num_rows)
        windows = self.part.windows(starts, self.context + 1)
        return np.ascontiguousarray(windows[:, :-1]), np.ascontiguousarray(windows[:, 1:])

    def target_places(self, step: int, first_row: int, num_rows: int) -> Int64:
        """Return (num_rows, T) the index of every target of those rows in the ring of tokens, not taken modulo."""
        _, starts = self._starts(step, first_row, num_rows)
        return starts[:, None] + np.arange(1, self.context + 1)

    def document_ids(self, step: int, first_row: int = 0, num_rows: int | None = None) -> Int64:
        """Return (num_rows, T) the document number of every input token, for attention limited to documents.

        The token that begins a document belongs to it.
        """
        count = self.batch_rows - first_row if num_rows is None else num_rows
        _, starts = self._starts(step, first_row, count)
        return self.part.document_numbers(starts[:, None] + np.arange(self.context))

    def windows_at(self, step: int) -> list[Window]:
        """Describe every row of a step, for reports."""
        epochs, starts = self._starts(step, 0, self.batch_rows)
        ids = self.document_ids(step)
        return [
            Window(
                row,
                int(epoch),
                int(start),
                tuple(self.part.namer(n) for n in dict.fromkeys(numbers.tolist())),
            )
            for row, (epoch, start, numbers) in enumerate(zip(epochs, starts, ids, strict=True))
        ]

    def _starts(self, step: int, first_row: int, num_rows: int) -> tuple[Int64, Int64]:
        """Return (epoch, index of the first token) of rows of a step."""
        if step < 0 or first_row < 0 or num_rows < 0 or first_row + num_rows > self.batch_rows:
            raise ValueError(f"rows {first_row}..{first_row + num_rows} of step {step} are not in the batch")
        count = self.windows_per_epoch
        serial = step * self.batch_rows + first_row + np.arange(num_rows, dtype=np.int64)
        epochs = serial // count
        starts = np.empty(num_rows, np.int64)
        for epoch in np.unique(epochs).tolist():
            in_epoch = epochs == epoch
            order = Permutation(count, self.seed, epoch)(serial[in_epoch] % count)
            starts[in_epoch] = (self._offset(epoch) + order * self.context) % self.part.num_tokens
        return epochs, starts

    def _offset(self, epoch: int) -> int:
        """Return the index at which an epoch begins to cut the ring."""
        digest = hashlib.blake2b(f"offset {self.seed} {epoch}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "little") % self.part.num_tokens
