"""``etude sweep``: train and evaluate a family of sizes by seeds, all in the same way."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from etude.cli.options import SOURCES_HELP, ConfigFile, Overrides, parse_duration

Sources = Annotated[list[str] | None, typer.Argument(help=SOURCES_HELP, show_default="builtin:primer")]
Sizes = Annotated[int, typer.Option(help="Number of sizes, from the narrowest shape on.")]
Seeds = Annotated[int, typer.Option(help="Number of runs of each size; a verdict needs three.")]
Time = Annotated[str, typer.Option(help="Time for the whole sweep on this machine, such as 40m or 3h.")]
Suite = Annotated[
    list[str] | None,
    typer.Option(
        help="Probes to run: text, world or tasks; repeat for several. Default: those that fit the text."
    ),
]
Items = Annotated[int, typer.Option(help="Items of each probe, at most.")]
Name = Annotated[str, typer.Option(help="The sweep's folder below `runs`.")]
Resume = Annotated[
    Path | None,
    typer.Option(
        metavar="SWEEP",
        help="Continue a sweep, or join it from another machine or process that shares the folder.",
    ),
]


def sweep(
    sources: Sources = None,
    sizes: Sizes = 4,
    seeds: Seeds = 3,
    time: Time = "40m",
    suite: Suite = None,
    items: Items = 64,
    name: Name = "sweep",
    config: ConfigFile = None,
    overrides: Overrides = None,
    resume: Resume = None,
) -> None:
    """Train a family of sizes by seeds, evaluate every checkpoint, and predict the largest size before its training."""
    from rich.console import Console

    from etude.cli.broken_pipe import outlive_reader
    from etude.config import load_settings
    from etude.errors import InputError
    from etude.evaluate.items import FEWEST_ITEMS
    from etude.workflow import sweep as job

    outlive_reader()
    console = Console()
    if resume is not None:
        if sources or config or overrides or suite:
            raise InputError("--resume continues with the sweep's own settings: omit the other options")
        job.resume(resume, console)
        return
    if sizes < 1 or seeds < 1:
        raise InputError("a sweep needs one size or more and one seed or more, such as --sizes 4 --seeds 3")
    if items < FEWEST_ITEMS:
        raise InputError(
            f"a probe needs at least {FEWEST_ITEMS} items for a usable score: type --items 64, or more"
        )
    values = {"data.sources": tuple(sources)} if sources else {}
    settings = load_settings(config, overrides or [], values)
    request = job.SweepRequest(sizes, seeds, parse_duration(time), tuple(suite or ()), items, name)
    job.begin(settings, request, console)
