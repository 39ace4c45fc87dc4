"""``etude runs``, ``etude plot`` and ``etude settings``: what there is, and how it went."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer


def runs(
    folder: Annotated[Path, typer.Argument(help="The folder that holds runs.")] = Path("runs"),
) -> None:
    """List the runs there are, newest first."""
    from etude.workflow import list_runs

    list_runs.show(folder)


def plot(
    run_folders: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="One run, or several to compare.")
    ],
    out: Annotated[Optional[Path], typer.Option(help="Where to; .png and .svg are both written.")] = None,  # noqa: UP045
    dark: Annotated[bool, typer.Option("--dark", help="Light lines on a dark ground.")] = False,
) -> None:
    """Draw loss curves with the rungs of the n-gram ladder, as PNG and SVG."""
    from etude.workflow.plot import plot_runs

    for path in plot_runs(run_folders, out, theme="dark" if dark else "light"):
        print(path)


def settings() -> None:
    """Every setting with its default."""
    from etude.config import Settings, to_toml

    print(to_toml(Settings()), end="")
