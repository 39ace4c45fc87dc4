"""Arguments and options that several commands share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from etude.errors import InputError

SOURCES_HELP = (
    "Files, folders, `-` for standard input, `hf:owner/name`, `builtin:primer`, `builtin:python`, `builtin:repeats`, "
    "`builtin:modular`, or `builtin:tasks` beside any of them. Conversations, for a model of the primer: "
    "`builtin:primer-instructions`. Questions whose answers are checked: `builtin:sums`, `builtin:copying`, "
    "`builtin:format`."
)

ConfigFile = Annotated[Path | None, typer.Option("--config", help="Settings in a TOML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Any setting, such as `train.lr=3e-4`; repeat for several."
    ),
]
ModelFolder = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL",
        help="A run, `RUN@STEP`, a checkpoint, a model folder, a .gguf file, or `hf:owner/name`.",
    ),
]

_SECONDS = {"s": 1, "m": 60, "h": 3600}


def parse_duration(text: str) -> float:
    """Return the seconds of a duration such as ``90s``, ``10m`` or ``1.5h``.

    Raises:
        InputError: ``text`` is not a duration.
    """
    number, unit = text[:-1], text[-1:].lower()
    if unit in _SECONDS and re.fullmatch(r"\d+(\.\d+)?", number) and float(number) > 0:
        return float(number) * _SECONDS[unit]
    raise InputError(f"a time is a number with s, m or h, such as 90s, 10m or 2h; got '{text}'")
