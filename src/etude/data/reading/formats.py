"""Readers for each kind of file: path in, pieces of documents out.

A reader raises :class:`Unusable` when the whole file cannot be used and logs single rows that cannot.
"""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from etude.data.document import Document
from etude.data.reading.html_text import declared_encoding, html_to_text
from etude.data.reading.piece import MAX_ROW_CHARS, Piece, SourceLog, Unusable
from etude.data.reading.streams import (
    CHUNK_BYTES,
    Opener,
    checked_encoding,
    compression_of,
    open_bytes,
    pieces_of,
    reading_faults,
    sniff_encoding,
    text_reader,
)
from etude.errors import InputError

Reader = Callable[[Path, str, str, SourceLog], Iterator[Piece]]


def format_of(path: Path) -> str:
    """The ending that decides how a file is read: ``book.txt.gz`` is ``.txt``. Empty when there is none."""
    bare = path.with_suffix("") if compression_of(path) else path
    return bare.suffix.lower()


def read_file(
    path: Path, name: str, text_field: str, log: SourceLog, *, as_text: bool = False
) -> Iterator[Piece]:
    """The documents of one file; whatever cannot be used is logged, never raised.

    ``name`` is how reports call the file. ``as_text`` reads a file of unknown ending as plain text.

    Raises:
        InputError: a library that this kind of file needs is not installed.
    """
    reader = _READERS.get(format_of(path), read_text if as_text else None)
    if reader is None:
        log.skip(f"unknown ending {format_of(path) or '(none)'}", name)
        return
    log.files += 1
    try:
        with reading_faults():
            yield from reader(path, name, text_field, log)
    except Unusable as error:
        log.skip(error.reason, name, error.detail)


def read_text(path: Path, name: str, text_field: str, log: SourceLog) -> Iterator[Piece]:
    """A text file: one document, in pieces when it is long."""
    opener: Opener = partial(open_bytes, path)
    with text_reader(opener, checked_encoding(opener)) as reader:
        for number, text in enumerate(pieces_of(reader)):
            yield Piece(Document(text, name, name), continues=number > 0)


def read_jsonl(path: Path, name: str, text_field: str, log: SourceLog) -> Iterator[Piece]:
    """JSON lines: one document a line."""
    opener: Opener = partial(open_bytes, path)
    # A bad byte spoils its own line only: it is carried as a surrogate, which the row check finds.
    with text_reader(opener, sniff_encoding(opener), newline="\n", errors="surrogateescape") as reader:
        number = 0
        while line := reader.readline(MAX_ROW_CHARS + 1):
            number += 1
            row_name = f"{name}:{number}"
            if len(line) > MAX_ROW_CHARS:
                while line and not line.endswith("\n"):
                    line = reader.readline(MAX_ROW_CHARS)
                log.skip(f"row longer than {MAX_ROW_CHARS:,} characters", row_name)
            elif line.strip():
                yield from _checked_row(_parse_json_line, line, row_name, name, text_field, log)


def _parse_json_line(line: str, text_field: str) -> object:
    _refuse_bad_bytes(line)
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Unusable("bad JSON line", str(error)) from None
    if not isinstance(value, dict):
        raise Unusable("bad JSON line", f"an object is needed, not {type(value).__name__}")
    if text_field not in value:
        raise _missing(text_field, list(value))
    return value[text_field]


def read_csv(path: Path, name: str, text_field: str, log: SourceLog) -> Iterator[Piece]:
    """Comma-separated rows below a header: one document a row."""
    opener: Opener = partial(open_bytes, path)
    csv.field_size_limit(MAX_ROW_CHARS)
    with text_reader(opener, sniff_encoding(opener), newline="", errors="surrogateescape") as reader:
        rows = csv.reader(reader)
        try:
            header = next(rows, [])
            if text_field not in header:
                raise _missing(text_field, header)
            column = header.index(text_field)
            for row in rows:
                if row:
                    row_name = f"{name}:{rows.line_num}"
                    yield from _checked_row(
                        partial(_cell, column=column), row, row_name, name, text_field, log
                    )
        except csv.Error as error:
            raise Unusable("damaged CSV", f"line {rows.line_num}: {error}") from error


def _cell(row: list[str], text_field: str, *, column: int) -> object:
    if column >= len(row):
        raise Unusable("row without text", f"it has {len(row)} columns")
    _refuse_bad_bytes(row[column])
    return row[column]


def read_parquet(path: Path, name: str, text_field: str, log: SourceLog) -> Iterator[Piece]:
    """Parquet: one document a row, read in batches of rows."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise InputError(f"{name} is Parquet, which needs pyarrow: pip install pyarrow") from None
    with tempfile.TemporaryDirectory() as folder:
        plain = _decompressed(path, Path(folder)) if compression_of(path) else path
        if plain.stat().st_size == 0:
            raise Unusable("empty")
        number = 0
        try:
            with pq.ParquetFile(plain, pre_buffer=False, buffer_size=CHUNK_BYTES) as table:
                if text_field not in table.schema_arrow.names:
                    raise _missing(text_field, table.schema_arrow.names)
                for batch in table.iter_batches(batch_size=256, columns=[text_field]):
                    for cell in batch.column(0):
                        number += 1
                        value = cell.as_py()
                        yield from _checked_row(_as_is, value, f"{name}:{number}", name, text_field, log)
        except (pa.ArrowException, UnicodeDecodeError) as error:
            raise Unusable(
                "damaged Parquet", f"after row {number:,}: {str(error).splitlines()[0]}"
            ) from error
        except OSError as error:  # pyarrow reports a damaged page as OSError
            if error.errno is not None:
                raise
            raise Unusable(
                "damaged Parquet", f"after row {number:,}: {str(error).splitlines()[0]}"
            ) from error


def _as_is(value: object, text_field: str) -> object:
    return value


def _decompressed(path: Path, folder: Path) -> Path:
    """Parquet needs random access, so a compressed one is unpacked to a temporary file first."""
    plain = folder / "table.parquet"
    with open_bytes(path) as source, plain.open("wb") as target:
        while chunk := source.read(CHUNK_BYTES):
            target.write(chunk)
    return plain


def read_html(path: Path, name: str, text_field: str, log: SourceLog) -> Iterator[Piece]:
    """A web page: its visible text as one document. The page's own ``<meta charset>`` is honoured."""
    opener: Opener = partial(open_bytes, path)
    with opener() as stream:
        raw = stream.read(MAX_ROW_CHARS + 1)
    if len(raw) > MAX_ROW_CHARS:
        raise Unusable(f"page longer than {MAX_ROW_CHARS:,} bytes")
    try:
        page = raw.decode(checked_encoding(opener))
    except Unusable as error:
        declared = declared_encoding(raw[:4096])
        if declared is None or not error.reason.startswith("not "):
            raise
        try:
            page = raw.decode(declared)
        except UnicodeDecodeError:
            raise error from None
    yield Piece(Document(html_to_text(page), name, name))


def _checked_row(
    text_of: Callable[[Any, str], object],
    row: object,
    row_name: str,
    origin: str,
    text_field: str,
    log: SourceLog,
) -> Iterator[Piece]:
    try:
        text = text_of(row, text_field)
        if text is None:
            raise Unusable("row without text")
        if not isinstance(text, str):
            raise Unusable("text is not a string", f"'{text_field}' holds {type(text).__name__}")
        if len(text) > MAX_ROW_CHARS:
            raise Unusable(f"row longer than {MAX_ROW_CHARS:,} characters")
    except Unusable as error:
        log.skip(error.reason, row_name, error.detail)
        return
    yield Piece(Document(text, row_name, origin))


def _refuse_bad_bytes(text: str) -> None:
    if any("\udc80" <= char <= "\udcff" for char in text) if not text.isascii() else False:
        raise Unusable(
            "not UTF-8", "this row has bad bytes; convert the file: iconv -f latin1 -t utf-8 FILE > NEW"
        )


def _missing(text_field: str, fields: list[str]) -> Unusable:
    known = ", ".join(f"'{field}'" for field in fields[:12]) or "none"
    return Unusable(
        "no text field", f"no '{text_field}'; fields there: {known}; choose with --set data.text_field=NAME"
    )


_READERS: dict[str, Reader] = {
    ".txt": read_text,
    ".md": read_text,
    ".rst": read_text,
    ".py": read_text,
    ".jsonl": read_jsonl,
    ".csv": read_csv,
    ".parquet": read_parquet,
    ".html": read_html,
}
KNOWN_ENDINGS = tuple(_READERS)
