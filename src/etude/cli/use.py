"""``etude generate`` and ``etude score``: a trained model at work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

Model = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run, one of its checkpoints, or a model folder.")
]


def generate(
    model: Model,
    prompt: Annotated[
        str, typer.Argument(help="What the text begins with; `-` reads it from standard input.")
    ] = "",
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token each time.")] = 0.8,
    top_k: Annotated[Optional[int], typer.Option(help="Choose among the k likeliest.")] = None,  # noqa: UP045
    top_p: Annotated[float, typer.Option(help="Choose among the likeliest that hold this share.")] = 0.95,
    min_p: Annotated[
        float, typer.Option(help="Drop what is less likely than this share of the likeliest.")
    ] = 0.0,
    max_new_tokens: Annotated[int, typer.Option(help="How many tokens at most.")] = 256,
    seed: Annotated[int, typer.Option(help="The same seed writes the same text.")] = 0,
) -> None:
    """Continue a text, word by word as it is written."""
    from etude.generate.sampling import SamplingSettings
    from etude.workflow import speak

    settings = SamplingSettings(
        temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, max_new_tokens=max_new_tokens
    )
    speak.generate(model, prompt, settings, seed)


def score(
    model: Model,
    file: Annotated[Path, typer.Argument(help="A text file; `-` reads standard input.")],
    json_lines: Annotated[
        bool, typer.Option("--json", help="One JSON object a token, then one for the whole.")
    ] = False,
    summary: Annotated[bool, typer.Option("--summary", help="Only the figures of the whole text.")] = False,
) -> None:
    """The log-probability of each token of a text, and its bits per byte."""
    from etude.workflow import speak

    speak.score(model, file, json_lines=json_lines, summary=summary)
