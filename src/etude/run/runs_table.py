"""The table of ``etude runs``: a line for each run."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from etude.errors import InputError
from etude.run.listing import RunLine, list_runs
from etude.untrusted import shown


def print_runs(folder: Path) -> None:
    """Print the table of the runs in ``folder``.

    Raises:
        InputError: there is no such folder, or this account may not read it.
    """
    if not folder.is_dir():
        raise InputError(f"no folder {folder}: train something first with `etude train`")
    lines = list_runs(folder)
    if not lines:
        print(f"no runs in {folder}: train something with `etude train`")
        return
    table = Table(box=None, header_style="bold")
    for heading in ("run", "state", "steps", "bits per byte", "passed", "model", "text", "changed"):
        table.add_column(heading, no_wrap=heading in ("run", "changed"))
    for line in lines:
        table.add_row(*(Text(shown(cell)) for cell in _cells(line)))  # not markup: a run may be called [red]
    Console().print(table)


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
