"""The windows of an evaluation: every token of the covered text is a target exactly once.

With a limit, coverage ends at a mark (:class:`etude.data.tokens.parts.TokenPart`), a place with a known number of
source bytes: at a document's end, or about every 16 kB inside a long one. So bits per byte is exact for the covered
text.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from etude.data.tokens.parts import TokenPart

Int64 = npt.NDArray[np.int64]
IGNORE_INDEX = -100
"""A target that the loss ignores: there is no next token, or the loss mask excludes it."""


class EvaluationWindows:
    """Consecutive windows of ``context`` targets over the first tokens of a part.

    Attributes:
        num_tokens: covered tokens, including the first ``eos``, which nothing predicts.
        num_targets: predicted tokens.
        source_bytes: UTF-8 bytes of exactly the text whose tokens are targets.
    """

    def __init__(self, part: TokenPart, context: int, max_tokens: int | None = None) -> None:
        if context < 1:
            raise ValueError("a window needs at least one target")
        tokens, sizes = part.marks
        last = len(tokens) - 1
        if max_tokens is not None and part.num_tokens > max_tokens:
            last = max(1, int(np.searchsorted(tokens, max_tokens, side="right")) - 1)
        self.part = part
        self.context = context
        self.num_tokens = int(tokens[last])
        self.source_bytes = int(sizes[last])
        self.num_targets = self.num_tokens - 1

    def __len__(self) -> int:
        """Return the number of windows."""
        return -(-self.num_targets // self.context)

    def batch(self, first: int, count: int) -> tuple[Int64, Int64]:
        """Return windows [first, first + count) as (inputs, targets), each (rows, T).

        After the last token, inputs are the token that begins documents and targets :data:`IGNORE_INDEX`.
        """
        count = min(count, len(self) - first)
        starts = (first + np.arange(count, dtype=np.int64)) * self.context
        places = starts[:, None] + np.arange(self.context + 1)
        windows = self.part.windows(starts, self.context + 1)
        beyond = places >= self.num_tokens
        inputs = np.where(beyond[:, :-1], self.part.document_id, windows[:, :-1])
        inputs[beyond[:, 1:]] = self.part.document_id  # the last token predicts nothing
        return inputs, np.where(beyond[:, 1:], IGNORE_INDEX, windows[:, 1:])

    def target_places(self, first: int, count: int) -> Int64:
        """Return the index (rows, T) of every target in the part; in the last window it may lie past the end."""
        count = min(count, len(self) - first)
        starts = (first + np.arange(count, dtype=np.int64)) * self.context
        return starts[:, None] + np.arange(1, self.context + 1)

    def document_ids(self, first: int, count: int) -> Int64:
        """Return (rows, T) the number of the document of every input token."""
        count = min(count, len(self) - first)
        starts = (first + np.arange(count, dtype=np.int64)) * self.context
        return self.part.document_numbers(starts[:, None] + np.arange(self.context))


def is_text(targets: Int64, not_text: Sequence[int]) -> npt.NDArray[np.bool_]:
    """Return which targets count for bits per byte: tokens of text, neither special tokens nor padding.

    ``not_text`` are the special tokens of the part (:attr:`etude.data.tokens.parts.TokenPart.not_text`).
    """
    return np.isin(targets, [*not_text, IGNORE_INDEX], invert=True)
