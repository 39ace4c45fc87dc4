"""``etude studio``: the page on which runs can be looked into."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Folder = Annotated[Path, typer.Argument(help="The folder that holds runs.")]
Host = Annotated[str, typer.Option(help="Whom to serve: this machine only unless told.")]
Port = Annotated[int, typer.Option(help="0 takes the first free one from 8123 on.")]


def studio(folder: Folder = Path("runs"), host: Host = "127.0.0.1", port: Port = 0) -> None:
    """See runs learn, step by step, on a local page. Ends with Ctrl-C."""
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
