"""A table for the terminal whose rows have long names. Names are never cut, however narrow the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

_BETWEEN = 2
_INDENT = 2
_LEAST = 16
"""Least width, in cells, for a name beside its figures. With less space the name gets a line of its own above them."""


@dataclass(frozen=True)
class Column:
    """A column beside the name. wraps: its words may wrap onto the next line in a narrow terminal."""

    heading: str
    right: bool = False
    wraps: bool = False


@dataclass(frozen=True)
class NamedTable:
    """A table with a row per name. Names precede their figures, wrapped at words, or are above them in little space."""

    heading: str
    columns: Sequence[Column]
    rows: Sequence[tuple[Text, Sequence[Text]]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        room = options.max_width
        natural = [self._widest(at) for at in range(len(self.columns))]
        names = [Text(self.heading), *(name for name, _ in self.rows)]
        whole = max(name.cell_len for name in names)
        needed = min(whole, max(_LEAST, *map(_longest_word, names)))
        lower = [self._below_wrapped_heading(at) for at in range(len(natural))]
        for widths in (natural, lower):
            beside = room - sum(widths) - _BETWEEN * len(widths)
            if beside >= needed:
                table = self._table(widths, min(whole, beside))
                for name, cells in self.rows:
                    table.add_row(name, *cells)
                yield table
                return
        widths = self._shrunk(lower, room - _INDENT)
        yield Text(self.heading, style="bold")
        yield Padding(self._table(widths, None), (0, 0, 0, _INDENT), expand=False)
        for name, cells in self.rows:
            yield Text.assemble(name, overflow="fold")
            table = self._table(widths, None, head=False)
            table.add_row(*cells)
            yield Padding(table, (0, 0, 0, _INDENT), expand=False)

    def _table(self, widths: Sequence[int], name: int | None, *, head: bool = True) -> Table:
        table = Table(box=None, header_style="bold", pad_edge=False, show_header=head)
        if name is not None:
            table.add_column(self.heading, width=name, overflow="fold")
        for column, width in zip(self.columns, widths, strict=True):
            table.add_column(
                column.heading,
                width=width,
                justify="right" if column.right else "left",
                overflow="fold",
            )
        return table

    def _cells(self, at: int) -> list[Text]:
        return [Text(self.columns[at].heading), *(cells[at] for _, cells in self.rows)]

    def _widest(self, at: int) -> int:
        return max(map(_longest_line, self._cells(at)))

    def _below_wrapped_heading(self, at: int) -> int:
        """Return the width of a column if only its heading wraps; the full width for a column that does not wrap."""
        heading, *cells = self._cells(at)
        if not self.columns[at].wraps:
            return self._widest(at)
        return max(_longest_word(heading), *map(_longest_line, cells))

    def _shrunk(self, given: Sequence[int], room: int) -> list[int]:
        """Narrow the columns that wrap, from the last one on, at most to their longest word, until all fit ``room``."""
        widths = list(given)
        for at in reversed(range(len(widths))):
            over = sum(widths) + _BETWEEN * (len(widths) - 1) - room
            if over > 0 and self.columns[at].wraps:
                widths[at] = max(max(map(_longest_word, self._cells(at))), widths[at] - over)
        return widths


def _longest_line(text: Text) -> int:
    return max(line.cell_len for line in text.split("\n", allow_blank=True))


def _longest_word(text: Text) -> int:
    return max((Text(word).cell_len for word in text.plain.split()), default=0)
