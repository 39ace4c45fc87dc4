"""Readers for each kind of file: they take a path and yield pieces of documents.

A reader raises :class:`Unusable` when the whole file cannot be used, and logs single rows that cannot be.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from etude.data.conversations.formats import KIND_KEYS, ROW_KEYS, is_conversation, unknown_format
from etude.data.document import Document
from etude.data.reading.binary import REFUSED
from etude.data.reading.csv_rows import texts_of
from etude.data.reading.documents import LibraryMissing, read_docx, read_epub, read_pdf, read_rtf
from etude.data.reading.encodings import encoding_of
from etude.data.reading.example_rows import example_line, kind_of, text_line
from etude.data.reading.fields import missing, names_in, text_of
from etude.data.reading.html_text import declared_encoding, html_to_text
from etude.data.reading.json_rows import lines_of, text_in, values_of
from etude.data.reading.options import ReadingOptions
from etude.data.reading.piece import MAX_ROW_CHARS, Piece, SourceLog, Unusable
from etude.data.reading.streams import (
    CHUNK_BYTES,
    Opener,
    compression_of,
    expands_too_much,
    expansion_limit,
    open_bytes,
    pieces_of,
    plain_file,
    reading_faults,
    text_reader,
)
from etude.errors import InputError

_PARQUET_ROWS = 8
"""Rows decoded at a time: a few bytes of Parquet can expand to rows of many megabytes."""
_VALUE_BYTES = 16
"""Least memory of a text, however short: a list of millions takes only a few bytes of Parquet."""
Reader = Callable[[Path, str, ReadingOptions, SourceLog], Iterator[Piece]]


def format_of(path: Path) -> str:
    """Return the ending that decides how a file is read: ``book.txt.gz`` gives ``.txt``. Empty when there is none."""
    bare = path.with_suffix("") if compression_of(path) else path
    return bare.suffix.lower()


def read_file(
    path: Path,
    name: str,
    options: ReadingOptions,
    log: SourceLog,
    *,
    named: bool = False,
    ending: str | None = None,
) -> Iterator[Piece]:
    """Yield the documents of one file; whatever cannot be used is logged, not raised.

    ``name`` is the file's name in reports. ``named`` means that the user named this file, not a folder: it is read as
    plain text if its ending is unknown. With an ``ending``, it is read as a file of this kind, whatever its own.

    Raises:
        InputError: the user named the file, and the library that it needs is not installed.
    """
    ending = format_of(path) if ending is None else ending
    if ending in REFUSED:
        log.skip(f"cannot read {ending}", name, ": ".join(REFUSED[ending]))
        return
    reader = _READERS.get(ending, read_text if named else None)
    if reader is None:
        log.skip(f"unknown ending {ending or '(none)'}", name)
        return
    log.files += 1
    try:
        with reading_faults():
            pieces = reader(path, name, options, log)
            if options.examples and ending not in ROW_ENDINGS:
                pieces = as_examples(pieces, options, log)
            yield from pieces
    except LibraryMissing as error:
        if named:
            raise InputError(f"'{name}': {error.reason}: {error.detail}") from None
        log.skip(error.reason, name, error.detail)
    except Unusable as error:
        log.skip(error.reason, name, error.detail)


def as_examples(pieces: Iterable[Piece], options: ReadingOptions, log: SourceLog) -> Iterator[Piece]:
    """Yield each piece of plain text as an example of its own; blank ones are logged."""
    for piece in pieces:
        try:
            line = text_line(piece.document.text, options, log)
        except Unusable as error:
            log.skip(error.reason, piece.document.id, error.detail)
        else:
            yield Piece(replace(piece.document, text=line))


def read_text(path: Path, name: str, options: ReadingOptions, log: SourceLog) -> Iterator[Piece]:
    """Read a text file as one document, in pieces when it is long."""
    opener: Opener = partial(open_bytes, path)
    encoding = encoding_of(opener, name, options, log)
    ending = format_of(path)
    if ending and ending not in _READERS:
        log.assume(f"unknown ending {ending}, read as plain text", name)
    with text_reader(opener, encoding.codec, errors=encoding.errors) as reader:
        for number, text in enumerate(pieces_of(reader)):
            yield Piece(Document(text, name, name), continues=number > 0)


def read_jsonl(path: Path, name: str, options: ReadingOptions, log: SourceLog) -> Iterator[Piece]:
    """Read JSON lines: one document per line."""
    yield from _json_values(path, name, options, log, partial(lines_of, name=name, log=log))


def read_json(path: Path, name: str, options: ReadingOptions, log: SourceLog) -> Iterator[Piece]:
    """Read JSON: one document per entry of an array, or one object."""
    refuse = _require_format if options.examples else partial(text_of, text_field=options.text_field)
    values = partial(values_of, name=name, refuse=refuse, log=log)
    yield from _json_values(path, name, options, log, values)


def _require_format(row: Mapping[str, Any]) -> None:
    """Raise Unusable for an object that is no example, but may hold them."""
    if not (is_conversation(row) or isinstance(row.get("text"), str)):
        raise Unusable("no text field", "no row of a known format")


def _json_values(
    path: Path,
    name: str,
    options: ReadingOptions,
    log: SourceLog,
    values: Callable[[io.TextIOBase], Iterator[tuple[str, object | Unusable]]],
) -> Iterator[Piece]:
    opener: Opener = partial(open_bytes, path)
    encoding = encoding_of(opener, name, options, log)
    text: Callable[[Any], object] = partial(text_in, text_field=options.text_field)
    if options.examples:
        text = partial(example_line, options=options, log=log)
    with text_reader(opener, encoding.codec, newline="\n", errors=encoding.errors) as reader:
        for row_name, value in values(reader):
            yield from _checked_row(value, row_name, name, log, text)


def read_csv(path: Path, name: str, options: ReadingOptions, log: SourceLog) -> Iterator[Piece]:
    """Read a table of text: one document per row."""
    opener: Opener = partial(open_bytes, path)
    encoding = encoding_of(opener, name, options, log)
    with text_reader(opener, encoding.codec, newline="", errors=encoding.errors) as reader:
        for row_name, text in texts_of(reader, path, name, options, log):
            yield from _checked_row(text, row_name, name, log)


def read_parquet(path: Path, name: str, options: ReadingOptions, log: SourceLog) -> Iterator[Piece]:
    """Read Parquet: one document per row, in batches of rows."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise InputError(f"{name} is Parquet, which needs pyarrow: pip install pyarrow") from None
    number, limit, decoded = 0, expansion_limit(path), 0
    text: Callable[[Any], object] = partial(text_of, text_field=options.text_field)
    if options.examples:
        text = partial(example_line, options=options, log=log)
    with plain_file(path) as plain:
        try:
            with pq.ParquetFile(plain, pre_buffer=False, buffer_size=CHUNK_BYTES) as table:
                columns = _columns(table.schema_arrow.names, options)
                if _declared_size(table.metadata, columns) > limit:
                    raise expands_too_much(limit)
                for batch in table.iter_batches(batch_size=_PARQUET_ROWS, columns=columns):
                    decoded += _decoded_size(batch)
                    if decoded > limit:
                        raise expands_too_much(limit)
                    for row in batch.to_pylist():
                        number += 1
                        yield from _checked_row(
                            row,
                            f"{name}:{number}",
                            name,
                            log,
                            text,
                        )
        except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
            # pyarrow reports a damaged page as an OSError without a number
            if isinstance(error, OSError) and error.errno is not None:
                raise
            reason = f"after row {number:,}: {str(error).splitlines()[0]}"
            raise Unusable("damaged Parquet", reason) from error


def _decoded_size(batch: Any) -> int:
    """Return the bytes of the rows, counting every text each time it occurs."""
    import pyarrow as pa

    size = 0
    for column in batch.columns:
        while pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
            column = column.flatten()
        size += column.dictionary_decode().nbytes if pa.types.is_dictionary(column.type) else column.nbytes
    return size


def _declared_size(metadata: Any, columns: list[str]) -> int:
    """Return the bytes that the pages of ``columns`` hold according to the file, or that their values need if more.

    A repeated text counts once, so the decoded size can be much larger.
    """
    size = 0
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for chunk in map(group.column, range(group.num_columns)):
            if chunk.path_in_schema in columns or chunk.path_in_schema.partition(".")[0] in columns:
                size += max(chunk.total_uncompressed_size, _VALUE_BYTES * chunk.num_values)
    return size


def _columns(known: list[str], options: ReadingOptions) -> list[str]:
    """Return the columns that hold the fields, directly or nested."""
    text_field = options.text_field
    if options.examples:
        if not (columns := [name for name in known if name in ROW_KEYS]):
            raise unknown_format(known)
        return [*columns, *(name for name in known if name in KIND_KEYS)]
    if text_field in known:
        return [text_field]
    wanted = [name if name in known else name.partition(".")[0] for name in names_in(text_field)]
    columns = [name for name in dict.fromkeys(wanted) if name in known]
    if not columns:
        raise missing(text_field, known)
    return columns


def read_html(path: Path, name: str, options: ReadingOptions, log: SourceLog) -> Iterator[Piece]:
    """Read the visible text of a web page as one document. The encoding that the page declares is used."""
    opener: Opener = partial(open_bytes, path)
    with opener() as stream:
        raw = stream.read(MAX_ROW_CHARS + 1)
    if len(raw) > MAX_ROW_CHARS:
        raise Unusable(f"page longer than {MAX_ROW_CHARS:,} bytes")
    encoding = encoding_of(opener, name, options, log, declared=declared_encoding(raw[:4096]))
    yield Piece(Document(html_to_text(raw.decode(encoding.codec, encoding.errors)), name, name))


def _checked_row(
    row: object,
    row_name: str,
    origin: str,
    log: SourceLog,
    text_in_row: Callable[[Any], object] = lambda row: row,
) -> Iterator[Piece]:
    try:
        if isinstance(row, Unusable):
            raise row
        text = text_in_row(row)
        assert isinstance(text, str)
        if len(text) > MAX_ROW_CHARS:
            raise Unusable(f"row longer than {MAX_ROW_CHARS:,} characters")
    except Unusable as error:
        log.skip(error.reason, row_name, error.detail)
        return
    yield Piece(Document(text, row_name, origin, kind_of(text)))


_READERS: Mapping[str, Reader] = {
    **dict.fromkeys([".txt", ".md", ".rst", ".py"], read_text),
    **dict.fromkeys([".jsonl", ".ndjson"], read_jsonl),
    ".json": read_json,
    **dict.fromkeys([".csv", ".tsv"], read_csv),
    ".parquet": read_parquet,
    **dict.fromkeys([".html", ".htm"], read_html),
    ".pdf": read_pdf,
    ".docx": read_docx,
    ".epub": read_epub,
    ".rtf": read_rtf,
}
KNOWN_ENDINGS = tuple(_READERS)
ROW_ENDINGS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
"""Endings of files that hold rows."""
PLAIN_ENDINGS = tuple(ending for ending, reader in _READERS.items() if reader is read_text)
"""Endings for which the size of a file is about the size of its text."""
