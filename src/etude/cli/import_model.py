"""``etude import``: make a model folder of a published model."""

from __future__ import annotations

from typing import Annotated

import typer

Source = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A .gguf file, `hf:owner/name`, a model or adapter folder, a run, or `RUN@STEP`.",
    ),
]
Name = Annotated[
    str | None, typer.Argument(metavar="[NAME]", help="The new folder; by default named as the model.")
]


def import_model(source: Source, name: Name = None) -> None:
    """Make a model folder of a published model, once. Every command also takes the model itself."""
    from rich.console import Console

    from etude.pretrained.import_model import import_model

    import_model(source, name, Console())
