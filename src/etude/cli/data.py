"""``etude data``: what text there is, before anything is trained on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

app = typer.Typer(help="Look at text before training on it.", no_args_is_help=True)


@app.callback()
def data() -> None:
    """Look at text before training on it."""


@app.command("report")
def report(
    sources: Annotated[list[str], typer.Argument(help="As for `etude train`.")],
    png: Annotated[
        Optional[Path], typer.Option(help="Draw the report into this file (.png or .svg).")
    ] = None,  # noqa: UP045
    json_file: Annotated[Optional[Path], typer.Option("--json", help="Write the report as JSON.")] = None,  # noqa: UP045
    config: Annotated[Optional[Path], typer.Option(help="Settings in a TOML file.")] = None,  # noqa: UP045
    set_: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting, such as `data.min_chars=20`."),
    ] = None,
) -> None:
    """What was read, what was kept, what was dropped and why, and how it splits and encodes."""
    from etude.config import load_settings
    from etude.workflow import jobs

    settings = load_settings(config, set_ or [], {"data.sources": tuple(sources)})
    jobs.report_data(settings, png, json_file)
