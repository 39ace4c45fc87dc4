"""``etude sweep``: a family of sizes by seeds, trained and examined alike."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from etude.cli.options import SOURCES_HELP, ConfigFile, Overrides, parse_duration

Sources = Annotated[list[str] | None, typer.Argument(help=SOURCES_HELP, show_default="builtin:primer")]
Sizes = Annotated[int, typer.Option(help="How many sizes, from the narrowest shape on.")]
Seeds = Annotated[int, typer.Option(help="How many runs of each size; a verdict needs three.")]
Time = Annotated[str, typer.Option(help="What all of it may take on this machine, such as 40m or 3h.")]
Suite = Annotated[
    list[str] | None,
    typer.Option(help="text, world or tasks: which probes; again for more. Default: what fits."),
]
Items = Annotated[int, typer.Option(help="Items of each probe, at most.")]
Name = Annotated[str, typer.Option(help="The sweep's folder below `runs`.")]
Resume = Annotated[
    Path | None,
    typer.Option(
        metavar="SWEEP",
        help="Go on with a sweep, or join in from another machine or process that has the same folder.",
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
    """Train a family of sizes by seeds, examine every checkpoint, and predict the largest size before it is trained."""
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
            raise InputError("--resume goes on with the sweep's own settings: leave the others out")
        job.go_on(resume, console)
        return
    if sizes < 1 or seeds < 1:
        raise InputError("a sweep needs one size or more and one seed or more, such as --sizes 4 --seeds 3")
    if items < FEWEST_ITEMS:
        raise InputError(f"a probe of fewer than {FEWEST_ITEMS} items says nothing: type --items 64, or more")
    values = {"data.sources": tuple(sources)} if sources else {}
    settings = load_settings(config, overrides or [], values)
    asked = job.Asked(sizes, seeds, parse_duration(time), tuple(suite or ()), items, name)
    job.begin(settings, asked, console)
