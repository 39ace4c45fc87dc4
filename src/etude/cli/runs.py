"""``etude runs``, ``etude plot`` and ``etude settings``: list runs, draw their losses, print all settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Folder = Annotated[Path, typer.Argument(help="The folder that holds runs.")]
Runs = Annotated[list[Path], typer.Argument(metavar="RUN...", help="One run, or several to compare.")]
Out = Annotated[Path | None, typer.Option(help="The picture's file; .png and .svg are both written.")]
Dark = Annotated[bool, typer.Option("--dark", help="Light lines on a dark background.")]


def runs(folder: Folder = Path("runs")) -> None:
    """List the runs in a folder, newest first, and models in several saved versions that Etude did not record."""
    from etude.run.runs_table import print_runs

    print_runs(folder)


def plot(run_folders: Runs, out: Out = None, dark: Dark = False) -> None:
    """Draw loss curves beside the losses of n-gram models, as PNG and SVG."""
    from etude.evaluate.loss_plot.plot import plot_runs

    for path in plot_runs(run_folders, out, theme="dark" if dark else "light"):
        print(path)


def settings() -> None:
    """Print every setting with its default and purpose, as a settings file."""
    from etude.setting_declarations import settings_with_help

    print(settings_with_help(), end="")
