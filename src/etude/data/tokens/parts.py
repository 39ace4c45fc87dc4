"""A part of the corpus as one long row of tokens: eos doc eos doc eos doc, memory-mapped.

Every document begins with the end-of-document token, so a document is predicted from its own ``eos`` and its end is the
``eos`` of the next. Positions are token indices in this row, whatever shard they lie in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
Tokens = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]


@dataclass(frozen=True, eq=False)
class TokenPart:
    """The tokens of a part.

    Attributes:
        shards: consecutive token arrays (memory maps).
        eos_id: the token that begins every document; it occurs nowhere else.
        documents: (num_documents + 1,) token index of every document's ``eos``, and the number of tokens.
        marks: (2, num_pieces + 1) places where tokens and source bytes are both known: the tokens before a piece of
            text and the UTF-8 bytes before it. Every document's beginning is one.
        namer: number of a document -> its id.
    """

    shards: Sequence[Tokens]
    eos_id: int
    documents: Int64
    marks: Int64
    namer: Callable[[int], str] = field(default=str, repr=False)

    @property
    def num_tokens(self) -> int:
        """Tokens, ``eos`` included."""
        return int(self.documents[-1])

    @property
    def num_documents(self) -> int:
        """Documents."""
        return len(self.documents) - 1

    @property
    def source_bytes(self) -> int:
        """UTF-8 bytes of the text behind the tokens."""
        return int(self.marks[1, -1])

    def __len__(self) -> int:
        return self.num_tokens

    def highest(self) -> int:
        """The highest token id of all."""
        return max(int(shard.max()) for shard in self.shards)

    def window(self, start: int, length: int) -> Int64:
        """(length,) tokens from ``start`` on. After the last token comes the first: the row is read as a ring."""
        tokens: Int64 = self.windows(np.array([start], np.int64), length)[0]
        return tokens

    def windows(self, starts: Int64, length: int) -> Int64:
        """(len(starts), length) tokens from each start on, read as a ring."""
        out = np.empty((len(starts), length), np.int64)
        total = self.num_tokens
        for row, start in zip(out, starts.tolist(), strict=True):
            filled = 0
            while filled < length:
                filled += self._copy((start + filled) % total, row[filled:])
        return out

    def document_number(self, index: int) -> int:
        """The number of the document that the token at ``index`` belongs to."""
        return int(np.searchsorted(self.documents, index, side="right")) - 1

    def document_numbers(self, indices: Int64) -> Int64:
        """:meth:`document_number` of every index (of the ring)."""
        return np.searchsorted(self.documents, indices % self.num_tokens, side="right").astype(np.int64) - 1

    def document_of(self, index: int) -> str:
        """The id of the document that the token at ``index`` belongs to."""
        return self.namer(self.document_number(index))

    def _copy(self, start: int, target: Int64) -> int:
        """Copy from ``start`` to the end of its shard, or until ``target`` is full; how many were copied."""
        for shard in self.shards:
            if start < len(shard):
                count = min(len(target), len(shard) - start)
                target[:count] = shard[start : start + count]
                return count
            start -= len(shard)
        raise IndexError("token index beyond the part")

    @classmethod
    def from_documents(
        cls, documents: Sequence[Sequence[int]], eos_id: int, source_bytes: Sequence[int] | None = None
    ) -> TokenPart:
        """A part held in memory, from the tokens of each document (without ``eos``).

        ``source_bytes`` of each document default to its number of tokens.
        """
        sizes = source_bytes if source_bytes is not None else [len(document) for document in documents]
        offsets = np.concatenate([[0], np.cumsum([len(document) + 1 for document in documents])]).astype(
            np.int64
        )
        tokens = np.array([token for document in documents for token in (eos_id, *document)], np.uint32)
        marks = np.stack([offsets, np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)])
        return cls([tokens], eos_id, offsets, marks)
