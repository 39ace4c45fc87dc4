"""``etude data``: report on a text before training on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from etude.cli.command import Command
from etude.cli.options import SOURCES_HELP, ConfigFile, Overrides

app = typer.Typer(help="Look at text before training on it.", no_args_is_help=True)

Picture = Annotated[Path | None, typer.Option("--png", help="Draw the report into this file (.png or .svg).")]
ReportFrom = Annotated[
    str | None,
    typer.Option("--from", metavar="MODEL", help="The model to train: needed for conversations."),
]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the report as JSON into this file.")]


@app.callback()
def data() -> None:
    """Look at text before training on it."""


@app.command("preview", cls=Command)
def preview_examples(
    sources: Annotated[list[str], typer.Argument(help=SOURCES_HELP)],
    base: Annotated[
        str, typer.Option("--from", metavar="MODEL", help="The model to tune, as for `etude train --from`.")
    ],
    rows: Annotated[int, typer.Option("--rows", min=0, help="Show this many rows; all are counted.")] = 5,
    context: Annotated[
        int | None,
        typer.Option(
            "--context", min=2, help="Tokens in a row, as train.context. Default: as training derives it."
        ),
    ] = None,
    page: Annotated[
        Path | None, typer.Option("--html", help="Write the rows as a page into this file.")
    ] = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Show which tokens of conversations and other rows would be trained, and why rows are not used."""
    from etude.config import load_settings
    from etude.pretrained.data_preview import show_preview

    values: dict[str, Any] = {"data.sources": tuple(sources)}
    if context is not None:
        values["train.context"] = context
    settings = load_settings(config, overrides or [], values)
    show_preview(settings, base, rows=rows, page=page)


@app.command("report", cls=Command)
def report(
    sources: Annotated[list[str], typer.Argument(help=SOURCES_HELP)],
    picture: Picture = None,
    json_file: JsonFile = None,
    base: ReportFrom = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Report what was read, kept and dropped (and why), and how the text is split and tokenized."""
    from etude.config import load_settings
    from etude.workflow import jobs

    values: dict[str, Any] = {"data.sources": tuple(sources)}
    if base is not None:
        values |= {"model.base": base, "tokenizer.kind": "base"}
    settings = load_settings(config, overrides or [], values)
    jobs.report_data(settings, picture, json_file)
