"""Tables of text (.csv, .tsv): find the delimiter, decide whether there is a header, and read the rows.

A quotation mark that never closes, or closes inside a cell, would swallow the rows after it. Such a row is read without
interpreting its quotes, the next line begins the next row, and the log counts it.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from etude.data.conversations.formats import CONVERSATION_KEYS, TEXT, unknown_format
from etude.data.reading import piece
from etude.data.reading.example_rows import example_line, table_row
from etude.data.reading.fields import missing, names_in, text_of
from etude.data.reading.options import DELIMITERS, ReadingOptions
from etude.data.reading.piece import SourceLog, Unusable

_SAMPLE_LINES = 50
_SAMPLE_CHARS = 1 << 16
_MOST_READ_TWICE = 4
"""Bound on characters read again after quotes that do not close, relative to the longest row plus the text read."""
_SEPARATOR_LINE = re.compile(r'"?sep=([^\w\s"]|\t)"?[\r\n]*', re.IGNORECASE)
"""A first line that declares the delimiter; Excel writes and reads it."""
_NAMES = {char: name for name, char in DELIMITERS.items()}
OVERRIDE = "--set data.csv_delimiter=NAME, data.csv_header=true or false, data.text_field=COLUMN"


@dataclass(frozen=True)
class Layout:
    """How a table is laid out: the character between cells, the columns' names, and whether there is a header."""

    delimiter: str
    columns: tuple[str, ...]
    has_header: bool
    text_field: str
    spaced: bool = False
    """Whether a space follows each delimiter; it belongs to no cell."""
    padded: bool = False
    """Whether spaces stand between closing quotation marks and the next delimiter; they belong to no cell."""
    quoted_names: bool = False
    """Whether the spaces around the columns' names were outside quotation marks."""

    @property
    def ends_in_text(self) -> bool:
        """Whether the last column holds the text, so that extra unquoted delimiters must belong to it."""
        return self.columns[-1] in {self.text_field, *names_in(self.text_field)}

    def surplus(self, cells: Sequence[str]) -> bool:
        """Return whether a row has text beyond its last column."""
        return any(cell.strip() for cell in cells[len(self.columns) :])


def texts_of(
    reader: io.TextIOBase, path: Path, name: str, options: ReadingOptions, log: SourceLog
) -> Iterator[tuple[str, str | Unusable]]:
    """Yield (name of the row, its text or why it cannot be used) for every row that is not empty.

    Raises:
        Unusable: no column has the requested name, or quotation marks do not close throughout.
    """
    csv.field_size_limit(piece.MAX_ROW_CHARS)
    lines = _Lines(reader)
    sample = lines.sample()
    declared = _SEPARATOR_LINE.fullmatch(sample[0]) if sample else None
    if declared:  # the line belongs to no row and is no assumption; an explicit setting overrides it
        next(lines)
        sample = sample[1:]
        options = replace(options, csv_delimiter=options.delimiter or declared[1])
    layout = _layout(sample, path, options)
    _note(layout, path, name, options, log)
    rows = _Rows(lines, layout)
    joined = 0
    skip_header = layout.has_header
    for number, cells in rows:
        if skip_header:
            skip_header = False
        elif cells:
            joined += layout.surplus(cells) and layout.ends_in_text
            if options.examples:
                yield f"{name}:{number}", _example(cells, layout, options, log)
            else:
                yield f"{name}:{number}", _text(cells, layout)
    if rows.stray:
        log.assume(f"rows read without quoting, since a quotation mark does not close: {rows.stray:,}", name)
    if rows.suspicious:
        log.assume(
            f"quoted cells in which every line looks like a row (check their quotes): {rows.suspicious:,}",
            name,
        )
    if joined:
        log.assume(f"rows whose last column holds unquoted delimiters, kept as text: {joined:,}", name)


class _Lines:
    """Lines that can be sampled in advance and given back."""

    def __init__(self, reader: io.TextIOBase) -> None:
        self._reader = reader
        self._waiting: list[str] = []
        self.taken: list[str] = []
        self.taken_chars = 0
        self.number = 0

    def sample(self) -> list[str]:
        lines: list[str] = []
        size = 0
        while len(lines) < _SAMPLE_LINES and size < _SAMPLE_CHARS and (line := self._read()):
            lines.append(line)
            size += len(line)
        self._waiting = lines[::-1]
        return lines

    def _read(self) -> str:
        line = self._reader.readline(piece.MAX_ROW_CHARS + 1)
        if len(line) > piece.MAX_ROW_CHARS:
            raise Unusable("damaged CSV", f"a line has more than {piece.MAX_ROW_CHARS:,} characters")
        return line

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = ""
        if self.taken_chars <= piece.MAX_ROW_CHARS:
            line = self._waiting.pop() if self._waiting else self._read()
        if not line:  # inside a quoted cell, the csv reader turns this into an error
            raise StopIteration
        self.taken.append(line)
        self.taken_chars += len(line)
        self.number += 1
        return line

    def begin(self) -> None:
        """Start a new row: the next line is its first."""
        self.taken, self.taken_chars = [], 0

    def give_back(self) -> str:
        """Give back all lines of the current row but the first, and return that one."""
        first, *others = self.taken
        self._waiting += others[::-1]
        self.number -= len(others)
        return first


class _Rows:
    """Iterate over the rows of a table, with the number of the line where each begins."""

    def __init__(self, lines: _Lines, layout: Layout) -> None:
        self._lines, self._delimiter, self._columns = lines, layout.delimiter, len(layout.columns)
        self._spaced = layout.spaced
        mark = re.escape(layout.delimiter)
        self._padding = re.compile(rf'(?<!")" +(?={mark}|[\r\n]|$)') if layout.padded else None
        self.stray = self.suspicious = self._again = self._done = 0

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        reader = self._reader()
        while True:
            self._lines.begin()
            first = self._lines.number + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error:
                self._again += self._lines.taken_chars
                line = self._lines.give_back()
                self._done += len(line)
                if self._again > _MOST_READ_TWICE * (piece.MAX_ROW_CHARS + self._done):
                    raise Unusable("damaged CSV", f"line {first:,}: quotation marks never close") from None
                cells = self._single(self._without_padding(line))
                reader = self._reader()
            else:
                self._look(cells)
            if self._padding is not None:
                cells = [cell.rstrip(" ") for cell in cells]
            yield first, cells

    def _reader(self) -> Iterator[list[str]]:
        lines = map(self._without_padding, self._lines)
        return csv.reader(lines, delimiter=self._delimiter, skipinitialspace=self._spaced, strict=True)

    def _without_padding(self, line: str) -> str:
        """Remove spaces between a closing quotation mark and the delimiter after it."""
        return line if self._padding is None else self._padding.sub('"', line)

    def _single(self, line: str) -> list[str]:
        """Read a line whose quotation marks do not follow CSV: escaped by backslashes, spaced, or plain text."""
        if '\\"' in line:
            try:
                row = next(csv.reader([line], delimiter=self._delimiter, escapechar="\\", strict=True))
                if len(row) == self._columns:
                    return row
            except csv.Error:
                pass
        self.stray += 1
        plain = next(csv.reader([line], delimiter=self._delimiter, quoting=csv.QUOTE_NONE))
        lenient = next(csv.reader([line], delimiter=self._delimiter, skipinitialspace=True))
        closes = line.count('"') % 2 == 0 and len(lenient) == self._columns != len(plain)
        return lenient if closes else plain

    def _look(self, cells: Sequence[str]) -> None:
        """Count a row of several lines that each have as many cells as a row: its quotes may be two strays."""
        lines = self._lines.taken
        if len(lines) > 1 and self._columns > 1:
            self.suspicious += all(line.count(self._delimiter) == self._columns - 1 for line in lines)


def _layout(sample: list[str], path: Path, options: ReadingOptions) -> Layout:
    """Determine the layout of a table from its first lines and the settings."""
    if not sample:
        raise Unusable("empty")
    delimiter = options.delimiter or _delimiter(sample, path, options)
    rows = [row for row in _plain_rows(sample, delimiter) if row]
    if not rows:
        raise Unusable("blank")
    first = _names_of(rows[0])
    known = _known(first, options)
    has_header = options.csv_header
    if has_header == "auto":
        has_header = known is not None or _looks_like_header(rows)
    if has_header:
        if known is None and options.examples:
            raise unknown_format(first)
        if known is None:
            raise missing(options.text_field, first, " or --set data.csv_header=false")
        spaced = len(first) > 1 and all(cell.startswith(" ") for cell in rows[0][1:])
        quoted = len(first) > 1 and any(_is_quoted(cell.strip()) for cell in rows[0])
        padded = quoted and any(cell.endswith(" ") for cell in rows[0][:-1])
        return Layout(delimiter, tuple(first), True, known, spaced, padded, quoted)
    width, count = Counter(map(len, rows)).most_common(1)[0]
    if options.delimiter is None and count <= len(rows) / 2:  # lines of text with a comma here and there
        width = 1
    columns = tuple(str(number + 1) for number in range(width))
    if all(name in columns for name in names_in(options.text_field)):
        return Layout(delimiter, columns, False, options.text_field)
    longest = max(range(width), key=lambda column: _total_length(rows, column))
    return Layout(delimiter, columns, False, columns[longest])


def _plain_rows(sample: list[str], delimiter: str) -> list[list[str]]:
    """Return the rows of a sample, for its layout only, where odd quotation marks do not matter yet."""
    lines = _Lines(io.StringIO("".join(sample), newline=""))
    try:
        return [row for _, row in _Rows(lines, Layout(delimiter, (), True, ""))]
    except Unusable:
        return [line.rstrip("\r\n").split(delimiter) for line in sample]


def _delimiter(sample: list[str], path: Path, options: ReadingOptions) -> str:
    """Return the delimiter that makes the requested column appear in the first row, else the most regular one."""

    text = "".join(sample)

    def merit(delimiter: str) -> tuple[bool, float, int]:
        rows = [row for row in _plain_rows(sample, delimiter) if row]
        if not rows:
            return False, 0.0, 0
        named = _known(_names_of(rows[0]), options) is not None
        width, count = Counter(map(len, rows)).most_common(1)[0]
        spaced = text.count(delimiter + " ") / max(
            text.count(delimiter), 1
        )  # punctuation is followed by a space
        alike = count / len(rows) * (1 - spaced / 2) if width > 1 else 0.0
        return named and len(rows[0]) > 1, alike, width

    order = ["\t", ",", ";", "|"] if ".tsv" in path.suffixes else [",", "\t", ";", "|"]
    best = max(order, key=lambda delimiter: (merit(delimiter), -order.index(delimiter)))
    return best if merit(best)[0] or merit(best)[1] > 0.4 else order[0]


def _is_quoted(cell: str) -> bool:
    return len(cell) > 2 and cell[0] == cell[-1] == '"'


def _names_of(cells: Sequence[str]) -> list[str]:
    """Return the names in a first row, without surrounding spaces and quotation marks."""
    bare = [cell.strip() for cell in cells]
    return [cell[1:-1].replace('""', '"').strip() if _is_quoted(cell) else cell for cell in bare]


def _known(columns: list[str], options: ReadingOptions) -> str | None:
    """Return the column of the text; of examples the last column, which may hold unquoted delimiters."""
    if not options.examples:
        return _named(columns, options.text_field)
    return columns[-1] if {column.lower() for column in columns} & {TEXT, *CONVERSATION_KEYS} else None


def _named(columns: list[str], text_field: str) -> str | None:
    """Return ``text_field`` as the header spells it, ignoring case if need be; None when it is missing."""
    if text_field in columns:
        return text_field
    by_lower = {column.lower(): column for column in reversed(columns)}
    if text_field.lower() in by_lower:
        return by_lower[text_field.lower()]
    names = names_in(text_field)
    if len(names) > 1 and all(name.lower() in by_lower for name in names):
        return ",".join(name if name in columns else by_lower[name.lower()] for name in names)
    return None


def _looks_like_header(rows: list[list[str]]) -> bool:
    """Return whether the first row names columns: distinct short texts, no numbers, nothing like a sentence."""
    first = _names_of(rows[0])
    if len(set(first)) < len(first) or not all(first):
        return False
    return all(
        len(cell) <= 40 and len(cell.split()) <= 3 and cell[-1] not in ".,:;!?…" and not _is_number(cell)
        for cell in first
    )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _total_length(rows: list[list[str]], column: int) -> int:
    return sum(len(row[column]) for row in rows if column < len(row))


def _text(cells: list[str], layout: Layout) -> str | Unusable:
    """Return the text of a row. A last column of text takes back what its own unquoted delimiters cut off."""
    try:
        cells = _of_width(cells, layout)
    except Unusable as error:
        return error
    by_column = dict(reversed(list(zip(layout.columns, cells, strict=False))))
    try:
        return text_of(by_column, layout.text_field)
    except Unusable:
        return Unusable("row without text", f"it has {len(cells)} columns")


def _of_width(cells: list[str], layout: Layout) -> list[str]:
    """Return the cells of a row without surplus ones. Raises Unusable where they cannot belong to the last column."""
    width = len(layout.columns)
    if not layout.surplus(cells):
        return cells
    if not layout.ends_in_text:
        raise Unusable("row with too many columns", f"{len(cells)} where there are {width}")
    return [*cells[: width - 1], layout.delimiter.join(cells[width - 1 :])]


def _example(cells: list[str], layout: Layout, options: ReadingOptions, log: SourceLog) -> str | Unusable:
    """Return the row as an example to learn from."""
    try:
        return example_line(table_row(layout.columns, _of_width(cells, layout)), options, log)
    except Unusable as error:
        return error


def _note(layout: Layout, path: Path, name: str, options: ReadingOptions, log: SourceLog) -> None:
    usual = "\t" if ".tsv" in path.suffixes else ","
    what = []
    if options.delimiter is None and layout.delimiter != usual and len(layout.columns) > 1:
        what.append(f"cells separated by {_NAMES.get(layout.delimiter, layout.delimiter)}")
    if options.csv_header == "auto" and not layout.has_header:
        what.append("no header")
    if layout.quoted_names:
        what.append("spaces around quoted cells dropped")
    if layout.text_field != options.text_field and not options.examples:
        column = layout.text_field
        what.append(f"text in column {column if not layout.has_header else repr(column)}")
    if what:
        log.assume(f"table with {', '.join(what)}", name, OVERRIDE)
