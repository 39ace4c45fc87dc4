"""Draw an evenly spread, repeatable sample from a stream of documents, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

PIECE_BYTES = 65_536

RULE = (
    "all of the text when it fits the cap; otherwise every n-th piece of at most 65536 bytes (a document, or "
    "a part of a long one), in order, where n is the smallest power of two that fits the cap; adjoining "
    "pieces of a document are joined again"
)


@dataclass(frozen=True)
class Sample:
    """The sampled texts in their order, and the total size of the stream in bytes."""

    documents: list[bytes]
    corpus_bytes: int

    @property
    def num_bytes(self) -> int:
        return sum(map(len, self.documents))


@dataclass(frozen=True, slots=True)
class _Piece:
    index: int
    document: int
    content: bytes


def evenly_spaced(documents: Iterable[bytes], max_bytes: int) -> Sample:
    """Keep at most `max_bytes` of a stream of unknown length, in one pass, by `RULE`.

    Taking the first bytes would be cheaper, but a corpus is often sorted (by author, date or file name), and its
    beginning is then unlike the rest. At most the cap and one document are held at any time.
    """
    if max_bytes < 1:
        raise ValueError("max_bytes must be at least 1")
    stride, kept_bytes, corpus_bytes = 1, 0, 0
    kept: list[_Piece] = []
    for piece in _pieces(documents, min(PIECE_BYTES, max_bytes)):
        corpus_bytes += len(piece.content)
        if piece.index % stride:
            continue
        kept.append(piece)
        kept_bytes += len(piece.content)
        while kept_bytes > max_bytes:
            stride *= 2
            kept = [piece for piece in kept if piece.index % stride == 0]
            kept_bytes = sum(len(piece.content) for piece in kept)
    return Sample(_joined(kept), corpus_bytes)


def _pieces(documents: Iterable[bytes], size: int) -> Iterator[_Piece]:
    index = 0
    for number, content in enumerate(documents):
        for start in range(0, len(content), size):
            yield _Piece(index, number, content[start : start + size])
            index += 1


def _joined(pieces: list[_Piece]) -> list[bytes]:
    groups: list[list[bytes]] = []
    previous: _Piece | None = None
    for piece in pieces:
        if previous and piece.document == previous.document and piece.index == previous.index + 1:
            groups[-1].append(piece.content)
        else:
            groups.append([piece.content])
        previous = piece
    return [b"".join(group) for group in groups]
