"""``etude studio``: serve the local page that shows runs and models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Shown = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[FOLDER | MODEL]...",
        help="A folder of runs and models; also model folders, a folder with step1000, step2000, ..., .gguf files or "
        "`hf:owner/name`. Default: runs, and the models in this folder.",
        show_default=False,
    ),
]
Host = Annotated[
    str, typer.Option(help="The address to listen on. By default only this machine can open the page.")
]
Port = Annotated[int, typer.Option(help="0 takes the first free port from 8123 on.")]


def studio(shown: Shown = None, host: Host = "127.0.0.1", port: Port = 0) -> None:
    """Watch runs learn, step by step, and look into published models, on a local page. Ctrl-C ends it."""
    from etude.serve import server
    from etude.serve.collection import collection_of
    from etude.serve.printed_address import printed_address

    def announce(address: str) -> None:
        print(f"studio: {printed_address(address)}  (Ctrl-C ends it)", flush=True)

    server.serve(collection_of(shown or []), host, port, announce=announce)
