"""``etude studio``: serve the local page that shows runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Folder = Annotated[Path, typer.Argument(help="The folder that holds runs.")]
Host = Annotated[
    str, typer.Option(help="The address to listen on. By default only this machine can open the page.")
]
Port = Annotated[int, typer.Option(help="0 takes the first free port from 8123 on.")]


def studio(folder: Folder = Path("runs"), host: Host = "127.0.0.1", port: Port = 0) -> None:
    """Watch runs learn, step by step, on a local page. Ctrl-C ends it."""
    from etude.errors import InputError
    from etude.serve import server
    from etude.serve.printed_address import printed_address

    if not folder.is_dir():
        raise InputError(
            f"no folder {folder}: train something first with `etude train`, or name another folder"
        )
    if (folder / "run.toml").is_file():
        raise InputError(f"{folder} is one run: give the folder that it is in, {folder.absolute().parent}")

    def announce(address: str) -> None:
        print(f"studio: {printed_address(address)}  (Ctrl-C ends it)", flush=True)

    server.serve(folder, host, port, announce=announce)
