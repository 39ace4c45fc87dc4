"""``etude train``: from text to a language model, and on from where a run stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer


def train(
    sources: Annotated[
        Optional[list[str]],  # noqa: UP045 - typer reads this annotation at run time
        typer.Argument(
            help="Files, folders, `-` for standard input, `hf:owner/name`, `builtin:primer` or `builtin:python`.",
            show_default="builtin:primer",
        ),
    ] = None,
    size: Annotated[
        Optional[str], typer.Option(help="How big: nano, tiny, small, medium or large.")  # noqa: UP045
    ] = None,
    tokenizer: Annotated[
        Optional[str], typer.Option(help="`bpe`, `char`, or a path to a tokenizer.json.")  # noqa: UP045
    ] = None,
    model: Annotated[
        Optional[str], typer.Option(help="The family: llama, qwen3, gpt2 or mlp.")  # noqa: UP045
    ] = None,
    steps: Annotated[Optional[int], typer.Option(help="Updates of the weights.")] = None,  # noqa: UP045
    seed: Annotated[
        Optional[int], typer.Option(help="Of the first weights and the order of the text.")
    ] = None,  # noqa: UP045
    name: Annotated[Optional[str], typer.Option(help="The run's folder below `runs`.")] = None,  # noqa: UP045
    config: Annotated[Optional[Path], typer.Option(help="Settings in a TOML file.")] = None,  # noqa: UP045
    set_: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Any setting, such as `train.lr=3e-4`; again for more."
        ),
    ] = None,
    resume: Annotated[
        Optional[Path], typer.Option(metavar="RUN", help="Go on with a run that was stopped.")  # noqa: UP045
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and what it costs.")
    ] = False,
) -> None:
    """Grow a language model from text. Without arguments: from Etude's own stories, in minutes."""
    from etude.config import load_settings
    from etude.errors import InputError
    from etude.workflow import jobs

    named = {
        "model.size": size,
        "tokenizer.kind": tokenizer,
        "model.preset": model,
        "train.steps": steps,
        "run.seed": seed,
        "run.name": name,
    }
    values: dict[str, object] = {key: value for key, value in named.items() if value is not None}
    if sources:
        values["data.sources"] = tuple(sources)
    if resume is not None:
        if values or set_ or config or dry_run:
            raise InputError("--resume goes on with the run's own settings: leave the other options out")
        jobs.resume(resume)
        return
    settings = load_settings(config, set_ or [], values)
    if dry_run:
        jobs.explain(settings)
    else:
        jobs.train(settings)
