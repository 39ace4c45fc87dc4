"""Encode a corpus into memory-mapped token files, in parallel and in constant memory.

train-00000.bin ...     tokens, uint16 up to 65,536 vocabulary entries, else uint32
train.documents.npy     token index of every document's beginning, and the end
train.marks.npy         tokens and source bytes before every piece of text
"""

from __future__ import annotations

import os
import signal
import tempfile
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from etude.data.corpus.corpus import Corpus, Part
from etude.data.corpus.cuts import PIECE_BYTES, Places, pieces, segments
from etude.data.tables import load_table, require_offsets
from etude.data.tokens.parts import TokenPart, Tokens
from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.errors import EtudeError, InputError
from etude.system import end_with_parent
from etude.untrusted import inside, shown

SHARD_TOKENS = 1 << 27
"""Most tokens in a file: 256 MB in uint16."""
TASK_BYTES = 1 << 19
"""Approximate bytes of text that a worker encodes at a time."""
LONGEST_STRETCH = 1 << 22
"""A stretch without a place to cut, such as one letter repeated, is cut after this many bytes: encoding it exactly
takes about 100 bytes of memory per byte."""
SERIAL_BYTES = 8_000_000
"""A smaller corpus is encoded in this process: starting workers would take longer."""

Progress = Callable[[str, int, int | None], None]
Segment = tuple[int, int, bool]
"""(start, end, whether a document begins at start): a range of the text store."""


@dataclass(frozen=True)
class Encoded:
    """The tokens of some segments, piece after piece, with the token that begins a document before each document."""

    tokens: bytes
    piece_tokens: list[int]
    piece_bytes: list[int]
    begins: list[bool]


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """Return the smallest type that holds every token id."""
    return np.dtype(np.uint16 if vocab_size <= 65_536 else np.uint32)


def encode_part(
    corpus: Corpus,
    part: Part,
    tokenizer: EtudeTokenizer,
    folder: Path,
    *,
    workers: int,
    progress: Progress,
    shard_tokens: int = SHARD_TOKENS,
    serial_bytes: int = SERIAL_BYTES,
) -> dict[str, Any]:
    """Write the tokens of a part to ``folder``; the result does not depend on ``workers``.

    Returns:
        Counts for the manifest: tokens, documents, source_bytes, and the shard files with their tokens.

    Raises:
        EtudeError: a worker died, or the disk is full.
    """
    total = corpus.num_bytes(part)
    cut_words: list[int] = []
    tasks = plan(corpus, part, tokenizer.places, cut_words)
    writer = PartWriter(folder, part, token_dtype(tokenizer.vocab_size), shard_tokens)
    if workers == 1 or total <= serial_bytes:
        read = corpus.store.read
        results: Iterable[Encoded] = (encode_segments(tokenizer, read, task) for task in tasks)
    else:
        results = _in_processes(corpus.folder, tokenizer, tasks, workers)
    for encoded in results:
        writer.add(encoded)
        progress(f"encode {part}", writer.bytes, total)
    return {**writer.close(), "cut_words": len(cut_words)}


def plan(
    corpus: Corpus, part: Part, places: Places, cut_words: list[int] | None = None
) -> Iterator[list[Segment]]:
    """Yield the part as tasks of about :data:`TASK_BYTES`; longer documents are cut at safe places.

    ``cut_words`` receives each place where :data:`LONGEST_STRETCH` bytes without a safe place were cut.
    """
    task: list[Segment] = []
    size = 0
    for first in range(0, len(corpus.ranges[part]), 4096):
        for start, end, _ in corpus.ranges[part][first : first + 4096].tolist():
            cuts = segments(corpus.store.read, start, end, TASK_BYTES, LONGEST_STRETCH, places)
            for first_byte, last_byte, safe in cuts:
                if not safe and cut_words is not None:
                    cut_words.append(last_byte)
                task.append((first_byte, last_byte, first_byte == start))
                size += last_byte - first_byte
                if size >= TASK_BYTES:
                    yield task
                    task, size = [], 0
    if task:
        yield task


def encode_segments(
    tokenizer: EtudeTokenizer, read: Callable[[int, int], bytes], segments: list[Segment]
) -> Encoded:
    """Encode ranges of the text, each in pieces that end at safe places."""
    texts: list[str] = []
    begins: list[bool] = []
    for start, end, begins_document in segments:
        for number, text in enumerate(
            pieces(read(start, end).decode("utf-8"), PIECE_BYTES, tokenizer.places)
        ):
            texts.append(text)
            begins.append(begins_document and number == 0)
    dtype = token_dtype(tokenizer.vocab_size)
    begin_document = np.array([tokenizer.roles.document_id], dtype)
    rows: list[npt.NDArray[Any]] = []
    counts: list[int] = []
    for ids, begin in zip(tokenizer.encode_clean(texts), begins, strict=True):
        row = np.array(ids, dtype)
        if (row == begin_document).any():
            raise EtudeError(
                f"the tokenizer writes '{tokenizer.roles.document}' for ordinary text: use another tokenizer"
            )
        rows += [begin_document, row] if begin else [row]
        counts.append(len(row) + begin)
    lengths = [len(text) if text.isascii() else len(text.encode("utf-8")) for text in texts]
    return Encoded(np.concatenate(rows).tobytes(), counts, lengths, begins)


def open_part(
    folder: Path, part: str, facts: dict[str, Any], dtype: str, document_id: int, namer: Callable[[int], str]
) -> TokenPart:
    """Open the tokens that :func:`encode_part` wrote, memory-mapped.

    Raises:
        InputError: a file is missing, or does not fit ``facts`` and the other files.
    """
    if dtype not in ("uint16", "uint32"):
        raise InputError(f"{folder} holds tokens of an unknown type, {shown(dtype)}: prepare the text again")
    shards = [_open_shard(inside(folder, shard["file"]), np.dtype(dtype)) for shard in facts["shards"]]
    documents = load_table(folder / f"{part}.documents.npy", np.int64, (None,))
    marks = load_table(folder / f"{part}.marks.npy", np.int64, (2, None))
    total = sum(map(len, shards))
    for name, places in (("documents", documents), ("marks", marks[0])):
        require_offsets(folder / f"{part}.{name}.npy", places, end=total)
    require_offsets(folder / f"{part}.marks.npy", marks[1])
    if len(documents) < 2:
        raise InputError(f"{folder / part}.documents.npy is damaged (no documents): prepare the text again")
    return TokenPart(shards, document_id, documents, marks, namer)


def _open_shard(path: Path, dtype: np.dtype[Any]) -> Tokens:
    try:
        if not path.is_file():
            raise InputError(f"{path} is missing: prepare the text again")
        return np.memmap(path, dtype=dtype, mode="r")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged ({shown(str(error))}): prepare the text again") from None


class PartWriter:
    """Append encoded text to shard files and build their tables in memory (24 bytes per piece, 8 per document)."""

    def __init__(self, folder: Path, part: str, dtype: np.dtype[Any], shard_tokens: int) -> None:
        self.folder, self.part, self.itemsize, self.shard_tokens = folder, part, dtype.itemsize, shard_tokens
        self.shards: list[dict[str, Any]] = []
        self.documents = array("q")
        self.piece_tokens = array("q", [0])
        self.piece_bytes = array("q", [0])
        self._file: Any = None

    @property
    def bytes(self) -> int:
        return self.piece_bytes[-1]

    def add(self, encoded: Encoded) -> None:
        for tokens, size, begins in zip(
            encoded.piece_tokens, encoded.piece_bytes, encoded.begins, strict=True
        ):
            if begins:
                self.documents.append(self.piece_tokens[-1])
            self.piece_tokens.append(self.piece_tokens[-1] + tokens)
            self.piece_bytes.append(self.piece_bytes[-1] + size)
        left = memoryview(encoded.tokens)
        while len(left):
            room = self._room() * self.itemsize
            self._file.write(left[:room])
            self.shards[-1]["tokens"] += min(room, len(left)) // self.itemsize
            left = left[room:]

    def close(self) -> dict[str, Any]:
        if self._file is not None:
            self._file.close()
        tokens = self.piece_tokens[-1]
        self.documents.append(tokens)
        np.save(self.folder / f"{self.part}.documents.npy", np.array(self.documents, np.int64))
        marks = np.stack(
            [np.frombuffer(self.piece_tokens, np.int64), np.frombuffer(self.piece_bytes, np.int64)]
        )
        np.save(self.folder / f"{self.part}.marks.npy", marks)
        return {
            "tokens": tokens,
            "documents": len(self.documents) - 1,
            "source_bytes": self.bytes,
            "shards": self.shards,
        }

    def _room(self) -> int:
        """Return how many tokens still fit into the open shard, after replacing a full one by a new one."""
        if not self.shards or self.shards[-1]["tokens"] >= self.shard_tokens:
            if self._file is not None:
                self._file.close()
            name = f"{self.part}-{len(self.shards):05d}.bin"
            self.shards.append({"file": name, "tokens": 0})
            self._file = (self.folder / name).open("wb")
        return int(self.shard_tokens - self.shards[-1]["tokens"])


_worker: tuple[EtudeTokenizer, Any] | None = None


def _start_worker(tokenizer: Path, corpus: Path) -> None:
    """Set up a worker process: one thread, and Ctrl-C is left to the parent."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _worker = EtudeTokenizer.load(tokenizer), Corpus(corpus)


def _work(task: list[Segment]) -> Encoded:
    assert _worker is not None
    tokenizer, corpus = _worker
    return encode_segments(tokenizer, corpus.store.read, task)


def _in_processes(
    corpus: Path, tokenizer: EtudeTokenizer, tasks: Iterable[list[Segment]], workers: int
) -> Iterator[Encoded]:
    """Yield results in the order of the tasks, with only a few tasks per worker in flight."""
    import multiprocessing

    # Pass the tokenizer as a file: if a worker dies while starting, a parent with more than a pipe's buffer to send to
    # it would block forever.
    handed_over = tempfile.TemporaryDirectory(prefix="etude-")
    tokenizer.save(Path(handed_over.name))
    pool = ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context(
            "spawn"
        ),  # a fork would copy the threads of torch and tokenizers
        initializer=_start_worker,
        initargs=(Path(handed_over.name), corpus),
    )
    waiting: deque[Future[Encoded]] = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(_work, task))
            if len(waiting) >= 3 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise EtudeError(
            "a process that encodes text was killed (out of memory?): try --set data.workers=1; a script of your own "
            "needs `if __name__ == '__main__':`"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        handed_over.cleanup()
