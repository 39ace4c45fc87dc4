"""``etude emergence``: how the abilities of a family of runs emerged."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Runs = Annotated[
    list[Path],
    typer.Argument(
        metavar="RUN...", help="Runs of several seeds, and of several sizes; or a folder of saved versions."
    ),
]
Against = Annotated[str, typer.Option(help="`steps`, `tokens`, `flops`, `parameters` or `loss`.")]
Report = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Write a page with plots, rules and tables there.")
]


def emergence(runs: Runs, against: Against = "steps", report: Report = None) -> None:
    """Show how each ability emerged: every seed, continuous and thresholded scores, and a verdict with its numbers."""
    from rich.console import Console

    from etude.emergence.command import emergence as judge

    judge(runs, against, report, console=Console())
