"""Rows read as examples to learn from (:mod:`etude.data.conversations`), one line of JSON for each."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from etude.data.conversations.conversation import Example
from etude.data.conversations.formats import example_of, is_conversation
from etude.data.corpus.clean import normalise
from etude.data.reading.options import ReadingOptions
from etude.data.reading.piece import SourceLog, Unusable

PEEKED_ROWS = 20


class Enough(Exception):
    """A look at the first rows has seen what it needs."""


class FirstRows(SourceLog):
    """A log that ends the reading as soon as a conversation, or :data:`PEEKED_ROWS` other rows, were seen."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = 0
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


def example_line(row: object, options: ReadingOptions, log: SourceLog) -> str:
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
    return example_of(row, partial(normalise, form=options.normalization, changed=log.changed)).to_json()


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
