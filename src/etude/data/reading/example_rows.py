"""Rows read as examples to learn from (:mod:`etude.data.conversations`), one line of JSON for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from etude.data.conversations.conversation import Example
from etude.data.conversations.formats import example_of, is_conversation, kind_in
from etude.data.corpus.clean import normalise
from etude.data.reading.options import ReadingOptions
from etude.data.reading.piece import Piece, SourceLog, Unusable

PEEKED_ROWS = 20


class Enough(Exception):
    """A look at the first rows has seen what it needs."""


class FirstRows(SourceLog):
    """A log that ends the reading as soon as a conversation, or :data:`PEEKED_ROWS` other rows, were seen.

    Attributes:
        usable: how many rows were examples; a conversation among them ends the reading.
        conversations: whether one was a conversation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rows = self.usable = 0
        self.conversations = False

    def look(self, row: object) -> None:
        """Count a row. Raises Enough when no further row is needed."""
        self.rows += 1
        self.conversations = is_conversation(row)
        if self.conversations or self.rows >= PEEKED_ROWS:
            raise Enough

    def skip(self, reason: str, name: str, detail: str = "", count: int = 1) -> None:
        """Count a row that cannot be read; other files and rows may follow."""
        super().skip(reason, name, detail, count)
        if self.skipped.total() >= PEEKED_ROWS:
            raise Enough


class ExampleLine(str):
    """The JSON of an example. ``kind`` is what its row calls itself."""

    kind = ""


def kind_of(text: str) -> str:
    """Return the kind of a document with this text; empty unless it is an example whose row names one."""
    return text.kind if isinstance(text, ExampleLine) else ""


def first_rows(read: Callable[[FirstRows], Iterator[Piece]]) -> FirstRows:
    """Return what the first rows are, of a source whose pieces ``read`` returns, read as examples with a log."""
    log = FirstRows()
    with suppress(Enough):
        for _ in read(log):
            log.usable += 1
    return log


def example_line(row: object, options: ReadingOptions, log: SourceLog) -> ExampleLine:
    """Return a row as the JSON of its example, with cleaned contents; a string is plain text.

    Raises:
        Unusable: the row has no known format, or is not usable as what it is.
    """
    if isinstance(row, str):
        row = {"text": row}
    if isinstance(log, FirstRows):
        log.look(row)
    if not isinstance(row, Mapping):
        raise Unusable("bad JSON line", f"an object or a string is needed, not {type(row).__name__}")
    clean = partial(normalise, form=options.normalization, changed=log.changed)
    line = ExampleLine(example_of(row, clean).to_json())
    line.kind = clean(kind_in(row))
    return line


def text_line(text: str, options: ReadingOptions, log: SourceLog) -> str:
    """Return a plain text as the JSON of its example, cleaned. Raises Unusable where nothing remains."""
    cleaned = normalise(text, options.normalization, log.changed)
    if not cleaned.strip():
        raise Unusable("blank")
    return Example("text", text=cleaned).to_json()


def table_row(columns: tuple[str, ...], cells: list[str]) -> dict[str, Any]:
    """Return a row of a table by the names of its columns in lower case; of columns of one name, the first."""
    pairs = list(zip((column.strip().lower() for column in columns), cells, strict=False))
    return dict(reversed(pairs))
