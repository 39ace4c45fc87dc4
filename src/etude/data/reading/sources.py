"""Open the sources that the user names after ``etude train`` as streams of documents.

A source is a file, a folder, ``-`` (standard input), ``builtin:NAME`` or ``hf:NAME``. Each reports what its text
depends on (``identity``, for the cache) and yields pieces of documents. No text is held whole in memory.
"""

from __future__ import annotations

import codecs
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeGuard

from etude.data.conversations.conversation import SAMPLED
from etude.data.reading import builtin, hub
from etude.data.reading.example_rows import FirstRows, first_rows
from etude.data.reading.formats import (
    KNOWN_ENDINGS,
    PLAIN_ENDINGS,
    ROW_ENDINGS,
    as_examples,
    format_of,
    read_file,
)
from etude.data.reading.options import ReadingOptions
from etude.data.reading.piece import Piece, SourceLog
from etude.data.reading.streams import CHUNK_BYTES, compression_of
from etude.errors import InputError
from etude.files import hash_file
from etude.messages import nearest_file
from etude.places import expand_home


class Source(Protocol):
    """A stream of documents."""

    @property
    def name(self) -> str:
        """The name as typed by the user."""

    @property
    def size(self) -> int | None:
        """Bytes of text to expect; None when unknown in advance."""

    def identity(self) -> dict[str, Any]:
        """Return plain values that change whenever the text changes."""

    def pieces(self, log: SourceLog) -> Iterator[Piece]:
        """Yield the documents, and note in ``log`` whatever had to be skipped."""


class PathSource:
    """A file, or all files below a folder in sorted order, without hidden ones."""

    def __init__(self, name: str, options: ReadingOptions) -> None:
        self.name = name
        self.root = expand_home(name)
        self.options = options
        if self.root.is_symlink() and not self.root.exists():
            raise InputError(f"'{name}' is a link to nothing: name the file itself")
        if not self.root.exists():
            raise InputError(f"there is no file or folder '{name}'{_nearest(self.root)}")
        if not self.root.is_file() and not self.root.is_dir():  # reading a device may never end
            raise InputError(
                f"'{name}' is neither a file nor a folder: name a file, or type - and pipe the text in"
            )

    @property
    def size(self) -> int | None:
        """Bytes on disk; None when something is compressed or is not plain text."""
        total = 0
        for path in self._files(SourceLog()):
            if compression_of(path) or format_of(path) not in PLAIN_ENDINGS:
                return None
            total += path.stat().st_size
        return total

    def identity(self) -> dict[str, Any]:
        """Return path and hash of every file, relative to the source: a folder that was moved is the same text."""
        inside = self.root if self.root.is_dir() else self.root.parent
        files = self._files(SourceLog())
        hashes = [[path.relative_to(inside).as_posix(), _hash(path, path == self.root)] for path in files]
        return {"files": hashes, "detector": version("chardet")}

    def pieces(self, log: SourceLog) -> Iterator[Piece]:
        """Yield the documents of every file; files of unknown kinds are counted."""
        for path in self._files(log):
            yield from read_file(path, self._label(path), self.options, log, named=path == self.root)

    def _label(self, path: Path) -> str:
        return (
            self.name
            if path == self.root
            else f"{self.name.rstrip('/')}/{path.relative_to(self.root).as_posix()}"
        )

    def _files(self, log: SourceLog) -> Iterator[Path]:
        if self.root.is_dir():
            yield from _walk(self.root, log, frozenset())
        else:
            yield self.root


class StreamSource:
    """Text that can be read only once (standard input, a pipe): one document, copied to a temporary file."""

    def __init__(
        self, name: str, stream: BinaryIO, spool: Path, options: ReadingOptions | None = None
    ) -> None:
        self.name = name
        self.options = options or ReadingOptions()
        spool.mkdir(parents=True, exist_ok=True)
        handle, path = tempfile.mkstemp(suffix=".txt", dir=spool)
        self.path = Path(path)
        with os.fdopen(handle, "wb") as target:
            shutil.copyfileobj(stream, target, CHUNK_BYTES)

    @property
    def size(self) -> int:
        """Bytes received."""
        return self.path.stat().st_size

    def identity(self) -> dict[str, Any]:
        """Return the hash of what was received."""
        return {"source": "stream", "hash": hash_file(self.path), "detector": version("chardet")}

    def pieces(self, log: SourceLog) -> Iterator[Piece]:
        """Yield one document; of rows that are read as examples, one for each."""
        label = "stdin" if self.name == "-" else self.name
        ending = self.row_ending if self.options.examples else ""
        if ending:
            log.assume("read as rows of JSON", label)
        yield from read_file(self.path, label, self.options, log, ending=ending or None)

    @property
    def row_ending(self) -> str:
        """The ending of a file with such rows, if one of the first rows is an example; empty for other text."""
        return self._begin[0] if self._begin[1].usable or self.has_conversations else ""

    @property
    def has_conversations(self) -> bool:
        """Whether one of the first rows is a conversation, or another example that is not plain text."""
        return self._begin[1].conversations

    @cached_property
    def _begin(self) -> tuple[str, FirstRows]:
        """The ending that its first character suggests, and the first rows of a file with this ending."""
        with self.path.open("rb") as file:
            first = file.read(CHUNK_BYTES).removeprefix(codecs.BOM_UTF8).lstrip()[:1]
        ending = {b"{": ".jsonl", b"[": ".json"}.get(first, "")
        if not ending:
            return "", FirstRows()
        options = replace(self.options, examples=True)
        return ending, first_rows(lambda log: read_file(self.path, self.name, options, log, ending=ending))


def open_sources(
    names: Sequence[str],
    *,
    text_field: str = "text",
    max_bytes: int | None,
    seed: int,
    spool: Path,
    options: ReadingOptions | None = None,
) -> list[Source]:
    """Open the sources that the user named; a repeated name counts once.

    ``options`` holds all reading settings; without it, only ``text_field`` is used. ``spool`` is a folder for standard
    input. The task mixture always comes first: as an addition, it must neither be cut off by ``max_bytes`` nor come at
    the end of the text.

    Raises:
        InputError: no such path (the nearest is suggested), no such built-in, or a missing optional library.
    """
    options = options or ReadingOptions(text_field)
    if not names:
        raise InputError("no text was named: type a file or folder, or builtin:primer")
    sources: list[Source] = []
    for name in dict.fromkeys(names):
        if not name:
            raise InputError(
                "an empty name is no text: type a file or folder (is a variable of your shell unset?)"
            )
        if name == "-":
            if sys.stdin is None:
                raise InputError("standard input is closed: pipe a text into the command, or name a file")
            sources.append(StreamSource(name, sys.stdin.buffer, spool, options))
        elif name.startswith(hub.PREFIX):
            sources.append(hub.HubSource(name, options.text_field, options))
        elif name == builtin.TASKS:
            share = _bytes_of_tasks(max_bytes, alone=len(set(names)) == 1)
            sources.insert(0, builtin.GeneratedSource(name, seed, share))
        elif name in builtin.GENERATED:
            sources.append(builtin.GeneratedSource(name, seed, max_bytes))
        elif name == builtin.PYTHON:
            sources.append(builtin.PythonSource())
        elif name.startswith(builtin.PREFIX):
            *others, last = builtin.NAMES
            raise InputError(f"there is no built-in '{name}': there are {', '.join(others)} and {last}")
        elif Path(name).is_fifo():
            with Path(name).open("rb") as stream:
                sources.append(StreamSource(name, stream, spool, options))
        elif Path(name).name == SAMPLED:
            sources.insert(0, PathSource(name, options))  # as an addition, as the task mixture
        else:
            sources.append(PathSource(name, options))
    return read_as_examples(sources, options) if options.examples else sources


def read_as_examples(sources: Sequence[Source], options: ReadingOptions) -> list[Source]:
    """Return the sources with each of their rows as an example."""
    options = replace(options, examples=True)
    for source in sources:
        if hasattr(source, "options"):
            source.options = options
    return [ExampleSource(source, options) for source in sources]


class ExampleSource:
    """A source whose documents are examples to learn from: lines of JSON. Plain text that is built in becomes some."""

    size = None

    def __init__(self, inner: Source, options: ReadingOptions) -> None:
        self.name, self.inner, self.options = inner.name, inner, options

    def identity(self) -> dict[str, Any]:
        """Return the identity of the source, marked: the same file read as text is another text."""
        return {**self.inner.identity(), "examples": 1}

    def pieces(self, log: SourceLog) -> Iterator[Piece]:
        """Yield each example as one document."""
        if _holds_conversations(self.inner):
            return self.inner.documents()
        pieces = self.inner.pieces(log)
        return as_examples(pieces, self.options, log) if self.name.startswith(builtin.PREFIX) else pieces


def has_conversations(sources: Sequence[Source]) -> bool:
    """Return whether one of the first rows of a source is a conversation or another example that is not plain text.

    The first rows of each file are read. A row with a ``text`` counts as plain text, and so does everything where the
    user has named another field of text.
    """
    return any(map(_begins_with_conversations, sources))


def _begins_with_conversations(source: Source) -> bool:
    inner = source.inner if isinstance(source, ExampleSource) else source
    if _holds_conversations(inner):
        return True
    options = getattr(inner, "options", None)
    if not isinstance(options, ReadingOptions) or options.text_field != ReadingOptions.text_field:
        return False
    options = replace(options, examples=True)
    if isinstance(inner, PathSource):
        files = [path for path in inner._files(SourceLog()) if format_of(path) in ROW_ENDINGS]
        looks = (first_rows(partial(read_file, path, str(path), options)) for path in files)
        return any(look.conversations for look in looks)
    if isinstance(inner, StreamSource):
        return inner.has_conversations
    if isinstance(inner, hub.HubSource):
        return first_rows(hub.HubSource(inner.name, inner.text_field, options).pieces).conversations
    return False


def _holds_conversations(source: Source) -> TypeGuard[builtin.GeneratedSource]:
    return isinstance(source, builtin.GeneratedSource) and source.generator.conversations


def _bytes_of_tasks(max_bytes: int | None, *, alone: bool) -> int:
    """Return the size of the task mixture: all that is requested when it is alone, else at most a tenth."""
    if max_bytes is None:
        return builtin.TASK_BYTES
    return max_bytes if alone else min(builtin.TASK_BYTES, max_bytes // 10)


def absolute_source(name: str) -> str:
    """Return ``name`` in a form that works from any folder."""
    if name == "-" or name.startswith((hub.PREFIX, builtin.PREFIX)):
        return name
    return str(expand_home(name).absolute())


def nothing_usable(log: SourceLog) -> InputError:
    """Return the error for sources without a usable document: what was looked at, and why each kind was skipped."""
    looked = ", ".join(log.looked_at[:5]) + (" ..." if len(log.looked_at) > 5 else "")
    reasons = []
    for reason, count in log.skipped.most_common(6):
        example = log.examples.get(reason, [""])[0]
        reasons.append(f"{count:,} {reason} (such as {example})")
    why = "; ".join(reasons) if reasons else "there are no files"
    return InputError(
        f"no usable text in {looked}: {why}; Etude reads {' '.join(KNOWN_ENDINGS)}, also .gz and .zst"
    )


def _walk(folder: Path, log: SourceLog, above: frozenset[str]) -> Iterator[Path]:
    """Yield the files below ``folder``, sorted; ``above`` holds the real paths of the folders that lead to it."""
    real = os.path.realpath(folder)
    if real in above:
        log.skip("symbolic link loop", str(folder))
        return
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        log.skip("unreadable", str(folder), error.strerror or "")
        return
    for entry in entries:
        path = folder / entry.name
        if entry.name.startswith("."):
            log.skip("hidden", str(path))
        elif os.path.isfile(path / "run.toml"):  # False rather than an error for a folder without access
            log.skip("a run of Etude", str(path))
        elif os.path.isdir(path):
            yield from _walk(path, log, above | {real})
        elif os.path.isfile(path):
            yield path
        else:
            log.skip("unreadable", str(path), "a broken link, a device, or no permission")


def _hash(path: Path, named: bool) -> str:
    try:
        if not named and format_of(path) not in KNOWN_ENDINGS and path.stat().st_size > 64 * CHUNK_BYTES:
            return f"size {path.stat().st_size}"  # skipped in a folder, so not worth reading
        return hash_file(path)
    except OSError as error:
        return f"unreadable: {error.strerror}"


def _nearest(path: Path) -> str:
    """Return a suggestion: the existing name nearest to a path that does not exist."""
    parent = path.parent
    while not parent.is_dir() and parent != parent.parent:
        path, parent = parent, parent.parent
    try:
        names = sorted(entry.name for entry in os.scandir(parent) if not entry.name.startswith("."))
    except OSError:
        names = []
    suggestion = nearest_file(path.name, names)
    if suggestion is not None:
        return f": did you mean '{parent / suggestion}'?"
    return f": nothing with a similar name is in '{parent}'"
