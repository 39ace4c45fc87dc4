"""Arguments and options that more than one command takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SOURCES_HELP = (
    "Files, folders, `-` for standard input, `hf:owner/name`, `builtin:primer` or `builtin:python`."
)

ConfigFile = Annotated[Path | None, typer.Option("--config", help="Settings in a TOML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any setting, such as `train.lr=3e-4`; again for more."),
]
ModelFolder = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run, one of its checkpoints, or a model folder.")
]
