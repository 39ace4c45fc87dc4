"""Which tokens of a part are trained: the tables beside the tokens of conversations and other examples.

train.trained.npy    whether the loss counts each token
train.turns.npy      token index after every turn of a conversation; a plain text has none
train.texts.npy      where the text of each example begins in train.text.bin, in bytes, and the end
train.spans.npy      (2, M) begin and end, in bytes of train.text.bin, of the trained text, without special tokens
train.text.bin       the rendered text of every example, UTF-8; of a preference, of the chosen answer
train.rejected.npy   of preferences only: token index where the conversation with the rejected answer begins
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

import numpy as np
import numpy.typing as npt

from etude.data.tables import load_table, require_offsets
from etude.errors import InputError
from etude.untrusted import readable

Int64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
TABLES = ("trained", "turns", "texts", "spans")
REJECTED = "rejected"


@dataclass(frozen=True, eq=False)
class ExampleTokens:
    """What is known of the tokens of a part besides their ids.

    Attributes:
        trained: (num_tokens,) whether the loss counts each token as a target.
        turns: token indices after each whole turn, ascending.
        texts: (num_examples + 1,) byte offsets of the rendered texts.
        spans: (2, M) byte ranges of the trained text, ascending.
        read: returns the bytes of a range of the rendered text.
        not_text: ids of special tokens, which are no text.
        rejected: (num_examples,) token index where the second conversation of each preference begins; None where the
            examples are no preferences.
    """

    trained: Mask
    turns: Int64
    texts: Int64
    spans: Int64
    read: Callable[[int, int], bytes]
    not_text: tuple[int, ...] = ()
    rejected: Int64 | None = None

    @property
    def pairs(self) -> int:
        """Number of preferences, without those that were dropped."""
        return 0 if self.rejected is None else len(self.turns)

    def text(self, number: int) -> bytes:
        """Return the rendered text of an example, with its special tokens as they are written."""
        return self.read(int(self.texts[number]), int(self.texts[number + 1]))

    def all_texts(self, max_bytes: int | None = None) -> Iterator[bytes]:
        """Yield the rendered texts in their order; whole ones, until ``max_bytes`` are reached."""
        for number in range(len(self.texts) - 1):
            if max_bytes is not None and self.texts[number + 1] > max_bytes:
                return
            yield self.text(number)

    def bytes_trained(self, number: int) -> Mask:
        """Return which bytes of the rendered text of an example are trained."""
        begin, end = int(self.texts[number]), int(self.texts[number + 1])
        mask = np.zeros(end - begin, bool)
        first, last = np.searchsorted(self.spans[0], [begin, end])
        for start, stop in self.spans[:, first:last].T.tolist():
            mask[start - begin : stop - begin] = True
        return mask

    @cached_property
    def numbers(self) -> dict[bytes, int]:
        """The number of the first example with each rendered text, by the hash of the text."""
        numbers: dict[bytes, int] = {}
        for number in range(len(self.texts) - 1):
            numbers.setdefault(text_key(self.text(number)), number)
        return numbers


def text_key(text: bytes) -> bytes:
    """Return the hash by which :attr:`ExampleTokens.numbers` knows a text."""
    return blake2b(text, digest_size=16).digest()


class ExampleWriter:
    """Collect the tables of a part, and write them."""

    def __init__(self, folder: Path, part: str) -> None:
        self.folder, self.part = folder, part
        self._trained: list[Mask] = []
        self._turns: list[int] = []
        self._texts = [0]
        self._spans: list[tuple[int, int]] = []
        self._tokens = 0
        self._rejected: list[int] = []
        self._has_pairs = False
        self._file = (folder / f"{part}.text.bin").open("wb")

    def add(
        self,
        trained: Mask,
        turns: Iterable[int],
        text: str,
        spans: Sequence[tuple[int, int]],
        second: int | None = None,
    ) -> int:
        """Add an example. Returns the bytes of its text.

        Args:
            turns: the number of its tokens after each turn.
            spans: the ranges of characters of its ``text`` that are trained.
            second: of a preference, the number of tokens before its second conversation.
        """
        self._rejected.append(self._tokens + (len(trained) if second is None else second))
        self._has_pairs |= second is not None
        raw = text.encode("utf-8")
        self._file.write(raw)
        self._trained.append(trained)
        self._turns += [self._tokens + turn for turn in turns]
        begin = self._texts[-1]
        for start, stop in spans:
            first = begin + len(text[:start].encode("utf-8"))
            self._spans.append((first, first + len(text[start:stop].encode("utf-8"))))
        self._texts.append(begin + len(raw))
        self._tokens += len(trained)
        return len(raw)

    def close(self) -> dict[str, int]:
        """Write the tables; return counts for the manifest."""
        self._file.close()
        trained = np.concatenate(self._trained)
        spans = np.array(self._spans, np.int64).reshape(-1, 2).T
        arrays = (trained, np.array(self._turns, np.int64), np.array(self._texts, np.int64), spans)
        for name, array in zip(TABLES, arrays, strict=True):
            np.save(self.folder / f"{self.part}.{name}.npy", array)
        if self._has_pairs:
            np.save(self.folder / f"{self.part}.{REJECTED}.npy", np.array(self._rejected, np.int64))
        return {"trained": int(trained.sum())}


def open_examples(folder: Path, part: str, num_tokens: int, not_text: tuple[int, ...]) -> ExampleTokens:
    """Open what :class:`ExampleWriter` wrote.

    Raises:
        InputError: a file is missing or damaged.
    """
    types = ((np.bool_, (num_tokens,)), (np.int64, (None,)), (np.int64, (None,)), (np.int64, (2, None)))
    trained, turns, texts, spans = (
        load_table(folder / f"{part}.{name}.npy", dtype, shape)
        for name, (dtype, shape) in zip(TABLES, types, strict=True)
    )
    rejected = None
    if (folder / f"{part}.{REJECTED}.npy").exists():
        rejected = load_table(folder / f"{part}.{REJECTED}.npy", np.int64, (len(texts) - 1,))
    file = folder / f"{part}.text.bin"
    with readable(file):
        size = file.stat().st_size
    require_offsets(folder / f"{part}.texts.npy", texts, end=size)
    others = () if rejected is None else ((REJECTED, rejected, num_tokens),)
    for name, rising, end in (("turns", turns, num_tokens), ("spans", spans.T.ravel(), size), *others):
        if len(rising) and (rising[0] < 0 or rising[-1] > end or (np.diff(rising) < 0).any()):
            raise InputError(f"{folder / part}.{name}.npy is damaged: prepare the text again")

    def read(begin: int, end: int) -> bytes:
        with readable(file), file.open("rb") as opened:
            opened.seek(begin)
            return opened.read(end - begin)

    return ExampleTokens(trained, turns, texts, spans, read, not_text, rejected)
