"""A part of the corpus as one memory-mapped row of tokens: <document> text <document> text.

Every document begins with the token for it (:class:`etude.data.tokens.roles.Roles`): a document is predicted from its
own, and its end is the beginning of the next. Positions are token indices in this row, regardless of shards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from etude.data.tokens.examples import ExampleTokens

Int64 = npt.NDArray[np.int64]
Tokens = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]


@dataclass(frozen=True, eq=False)
class TokenPart:
    """The tokens of a part.

    Attributes:
        shards: consecutive token arrays (memory maps).
        document_id: the token that begins every document; it occurs nowhere else.
        documents: (num_documents + 1,) token index of every document's first token, then the number of tokens.
        marks: (2, num_pieces + 1) places where both counts are known: the tokens and the UTF-8 bytes before a piece of
            text. Every document's beginning is a mark.
        namer: returns the id of a document by its number.
        examples: which tokens are trained, of conversations and other examples; None for text. A document is then an
            example, and begins as the model's template begins.
    """

    shards: Sequence[Tokens]
    document_id: int
    documents: Int64
    marks: Int64
    namer: Callable[[int], str] = field(default=str, repr=False)
    examples: ExampleTokens | None = None

    @property
    def num_tokens(self) -> int:
        """Number of tokens, including those that begin documents."""
        return int(self.documents[-1])

    @property
    def num_documents(self) -> int:
        """Number of documents."""
        return len(self.documents) - 1

    @property
    def source_bytes(self) -> int:
        """UTF-8 bytes of the text of all tokens."""
        return int(self.marks[1, -1])

    @property
    def not_text(self) -> tuple[int, ...]:
        """The special tokens, which stand for no text."""
        return (self.document_id,) if self.examples is None else self.examples.not_text

    def __len__(self) -> int:
        return self.num_tokens

    def highest(self) -> int:
        """Return the highest token id."""
        return max(int(shard.max()) for shard in self.shards)

    def window(self, start: int, length: int) -> Int64:
        """Return (length,) tokens from ``start`` on. The row is a ring: the first token follows the last."""
        tokens: Int64 = self.windows(np.array([start], np.int64), length)[0]
        return tokens

    def windows(self, starts: Int64, length: int) -> Int64:
        """Return (len(starts), length) tokens from each start on, read as a ring."""
        out = np.empty((len(starts), length), np.int64)
        total = self.num_tokens
        for row, start in zip(out, starts.tolist(), strict=True):
            filled = 0
            while filled < length:
                filled += self._copy((start + filled) % total, row[filled:])
        return out

    def document_number(self, index: int) -> int:
        """Return the number of the document that holds the token at ``index``."""
        return int(np.searchsorted(self.documents, index, side="right")) - 1

    def document_numbers(self, indices: Int64) -> Int64:
        """Return :meth:`document_number` for every index (of the ring)."""
        return np.searchsorted(self.documents, indices % self.num_tokens, side="right").astype(np.int64) - 1

    def document_of(self, index: int) -> str:
        """Return the id of the document that holds the token at ``index``."""
        return self.namer(self.document_number(index))

    def _copy(self, start: int, target: Int64) -> int:
        """Copy from ``start`` until the end of its shard or of ``target``; return how many tokens were copied."""
        for shard in self.shards:
            if start < len(shard):
                count = min(len(target), len(shard) - start)
                target[:count] = shard[start : start + count]
                return count
            start -= len(shard)
        raise IndexError("token index beyond the part")

    @classmethod
    def from_documents(
        cls, documents: Sequence[Sequence[int]], document_id: int, source_bytes: Sequence[int] | None = None
    ) -> TokenPart:
        """Make a part in memory from the tokens of each document (without the one that begins it).

        The ``source_bytes`` of a document default to its number of tokens.
        """
        sizes = source_bytes if source_bytes is not None else [len(document) for document in documents]
        offsets = np.concatenate([[0], np.cumsum([len(document) + 1 for document in documents])]).astype(
            np.int64
        )
        tokens = np.array([token for document in documents for token in (document_id, *document)], np.uint32)
        marks = np.stack([offsets, np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)])
        return cls([tokens], document_id, offsets, marks)
