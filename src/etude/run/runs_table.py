"""The table of ``etude runs``: a line for each run, and for each history that Etude did not record."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from etude.errors import InputError
from etude.run.listing import HistoryLine, RunLine, list_histories, list_runs
from etude.untrusted import shown

HEADINGS = ("run", "state", "steps", "bits per byte", "passed", "model", "text", "changed")
OF_HISTORIES = ("not recorded by Etude (read only)", "versions", "steps", "the same weights, or skipped")


def print_runs(folder: Path) -> None:
    """Print the table of the runs in ``folder``.

    Raises:
        InputError: there is no such folder, or this account may not read it.
    """
    if not folder.is_dir():
        raise InputError(f"no folder {folder}: train something first with `etude train`")
    lines, histories = list_runs(folder), list_histories(folder)
    if not lines and not histories:
        print(f"no runs in {folder}: train something with `etude train`")
    tables: list[RenderableType] = []
    if lines:
        tables.append(_table(HEADINGS, map(_cells, lines)))
    if histories:
        tables.append(_table(OF_HISTORIES, map(_cells_of_history, histories)))
    for at, table in enumerate(tables):
        Console().print(*([""] if at else []), table, sep="\n")


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(box=None, header_style="bold")
    for heading in headings:
        table.add_column(heading, no_wrap=heading in (headings[0], "changed"))
    for cells in rows:
        table.add_row(*(Text(shown(cell)) for cell in cells))  # not markup: a run may be called [red]
    return table


def _cells_of_history(line: HistoryLine) -> tuple[str, ...]:
    if line.problem:
        return line.name, "damaged", "", line.problem
    notes = "; ".join((*line.duplicates, *line.skipped))
    return line.name, str(line.num_versions), f"{line.first} to {line.last}", notes


def _cells(line: RunLine) -> tuple[str, ...]:
    return (
        line.name,
        line.state,
        f"{line.step}/{'?' if line.num_steps is None else line.num_steps}",
        "" if line.bits_per_byte is None else f"{line.bits_per_byte:.3f}",
        f"{line.passed}-gram" if line.passed else "",
        line.model,
        " ".join(Path(source).name or source for source in line.sources),
        datetime.fromtimestamp(line.changed).strftime("%Y-%m-%d %H:%M"),
    )
