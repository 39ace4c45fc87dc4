"""Rows of JSON: one value per line, or an array or object in one file, without holding a long array in memory."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from etude.data.reading import piece
from etude.data.reading.fields import text_of
from etude.data.reading.piece import SourceLog, Unusable

_READ_CHARS = 1 << 16
_SPACE = " \t\r\n"


def lines_of(reader: io.TextIOBase, name: str, log: SourceLog) -> Iterator[tuple[str, object | Unusable]]:
    """Yield (name of the row, its value or why it cannot be used) for every line that is not empty."""
    number = 0
    while line := reader.readline(piece.MAX_ROW_CHARS + 1):
        number += 1
        if len(line) > piece.MAX_ROW_CHARS:
            while line and not line.endswith("\n"):
                line = reader.readline(piece.MAX_ROW_CHARS)
            yield f"{name}:{number}", Unusable(f"row longer than {piece.MAX_ROW_CHARS:,} characters")
        elif line.strip():
            yield f"{name}:{number}", _parsed_line(line)


def values_of(
    reader: io.TextIOBase, name: str, refuse: Callable[[Mapping[str, Any]], object], log: SourceLog
) -> Iterator[tuple[str, object | Unusable]]:
    """Yield (name of the row, its value or why it cannot be used) for a .json file.

    An array gives its entries; an object that is a row gives itself, and another object the entries of its only
    array; JSON lines in a file with this ending are read as such. ``refuse`` raises Unusable for an object that is no
    row: it has "no text field".

    Raises:
        Unusable: not JSON, an object too long for memory, or one without the field.
    """
    beginning = reader.read(_READ_CHARS)
    kind = beginning.lstrip(_SPACE)[:1]
    if not kind:
        raise Unusable("blank")
    if kind == "[":
        for number, value in enumerate(_entries(_Buffer(reader, beginning)), start=1):
            yield f"{name}#{number}", value
        return
    first, _, rest = beginning.lstrip(_SPACE).partition("\n")
    if rest.strip() and not isinstance(_parsed_line(first), Unusable):
        log.assume("JSON lines, though it is called .json", name)
        yield from lines_of(_Rejoined(beginning, reader), name, log)
        return
    whole = beginning + reader.read(piece.MAX_ROW_CHARS)
    if len(whole) > piece.MAX_ROW_CHARS:
        raise Unusable(
            f"JSON object longer than {piece.MAX_ROW_CHARS:,} characters",
            "write its rows as .jsonl, one a line",
        )
    yield from _rows_of_object(_parsed(whole, "damaged JSON"), name, refuse, log)


def text_in(value: object, text_field: str) -> str:
    """Return the text of a JSON row; a string is its own text.

    Raises:
        Unusable: neither an object nor a string, or without the field.
    """
    if isinstance(value, str):
        return value
    if not isinstance(value, Mapping):
        raise Unusable("bad JSON line", f"an object or a string is needed, not {type(value).__name__}")
    return text_of(value, text_field)


def _parsed_line(line: str) -> object | Unusable:
    try:
        return _parsed(line, "bad JSON line")
    except Unusable as error:
        return error


def _parsed(text: str, reason: str) -> object:
    try:
        return json.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:
        raise Unusable(reason, str(error)) from None


def _rows_of_object(
    whole: object, name: str, refuse: Callable[[Mapping[str, Any]], object], log: SourceLog
) -> Iterator[tuple[str, object | Unusable]]:
    if isinstance(whole, Mapping):
        try:
            refuse(whole)
        except Unusable as error:
            arrays = {key: value for key, value in whole.items() if isinstance(value, list) and value}
            if error.reason != "no text field" or len(arrays) != 1:
                raise
            ((key, entries),) = arrays.items()
            log.assume(f"JSON object, its rows are the entries of '{key}'", name)
            for number, value in enumerate(entries, start=1):
                yield f"{name}#{number}", value
            return
    yield name, whole


class _Buffer:
    """Text that is read further as it is used up."""

    def __init__(self, reader: io.TextIOBase, text: str) -> None:
        self.reader, self.text, self.position = reader, text, 0

    def more(self) -> bool:
        """Read as much again as is unused; return False at the end of the file or at the limit of a row."""
        waiting = len(self.text) - self.position
        if waiting > piece.MAX_ROW_CHARS:
            return False
        chunk = self.reader.read(max(_READ_CHARS, waiting))
        self.text, self.position = self.text[self.position :] + chunk, 0
        return bool(chunk)

    def next(self) -> str:
        """Return the next character that is not white space, without using it up; empty at the end."""
        while True:
            while self.position < len(self.text) and self.text[self.position] in _SPACE:
                self.position += 1
            if self.position < len(self.text) or not self.more():
                return self.text[self.position : self.position + 1]


def _entries(buffer: _Buffer) -> Iterator[object]:
    """Yield the entries of an array, one after the other.

    Raises:
        Unusable: the array is damaged from some entry on.
    """
    decoder = json.JSONDecoder()
    buffer.next()
    buffer.position += 1
    done = 0
    while (sign := buffer.next()) not in {"]", ""}:
        if sign == "," and done:
            buffer.position += 1
            buffer.next()
        yield _entry(buffer, decoder, done)
        done += 1
        if buffer.next() not in {",", "]"}:
            break
    if buffer.next() != "]":
        raise Unusable("damaged JSON", f"after row {done:,}: the array does not continue as one")


def _entry(buffer: _Buffer, decoder: json.JSONDecoder, done: int) -> object:
    while True:
        try:
            value, end = decoder.raw_decode(buffer.text, buffer.position)
            length, complete = end - buffer.position, end < len(buffer.text)
            if complete or not buffer.more():  # a number may continue after the end of the buffer
                buffer.position += length
                return value
        except RecursionError as error:
            raise Unusable("damaged JSON", f"after row {done:,}: {error}") from None
        except ValueError as error:
            if not buffer.more():
                raise Unusable("damaged JSON", f"after row {done:,}: {error}") from None


class _Rejoined(io.TextIOBase):
    """The lines of a text whose beginning was already read."""

    def __init__(self, beginning: str, reader: io.TextIOBase) -> None:
        self._beginning, self._reader = io.StringIO(beginning, newline="\n"), reader

    def readline(self, size: int = -1) -> str:  # type: ignore[override]
        line = self._beginning.readline(size)
        return line if line.endswith("\n") or 0 <= size <= len(line) else line + self._reader.readline(size)
