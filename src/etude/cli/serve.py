"""``etude serve``: serve models to other programs."""

from __future__ import annotations

from typing import Annotated

import typer

Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL...",
        help="Runs (their newest checkpoint, also while they train), `RUN@STEP`, checkpoints, model folders, adapters, "
        ".gguf files, or `hf:owner/name`.",
    ),
]
Steps = Annotated[
    list[int] | None,
    typer.Option("--step", min=0, help="Serve this step of each run, as `NAME@STEP`; repeat for several."),
]
Host = Annotated[str, typer.Option(help="The address to listen on. By default only this machine can call.")]
Port = Annotated[int, typer.Option(help="0 takes the first free port from 8123 on.")]
Rows = Annotated[
    int, typer.Option(min=1, max=256, help="Most answers of a model that are generated together.")
]
Context = Annotated[
    int | None, typer.Option(min=2, help="Most tokens of a request; by default what the model reads.")
]
Queue = Annotated[int, typer.Option(min=1, help="Most answers that wait; more get status 429.")]
Key = Annotated[
    str | None, typer.Option("--api-key", help="Callers must send it. Also read from ETUDE_API_KEY.")
]
Origins = Annotated[
    list[str] | None,
    typer.Option("--allow-origin", metavar="ORIGIN", help="A page that may call from a browser."),
]
Studio = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Of a studio with the same models, for links in /v1/answers."),
]


def serve(
    models: Sources,
    step: Steps = None,
    host: Host = "127.0.0.1",
    port: Port = 0,
    rows: Rows = 8,
    context: Context = None,
    queue: Queue = 256,
    api_key: Key = None,
    allow_origin: Origins = None,
    studio: Studio = None,
) -> None:
    """Serve models to programs that speak OpenAI's API. Ctrl-C ends it."""
    from etude.serve.api.command import serve_models
    from etude.serve.api.models import Limits

    serve_models(
        models,
        steps=step or [],
        host=host,
        port=port,
        limits=Limits(rows, context),
        most_waiting=queue,
        key=api_key,
        origins=allow_origin or [],
        studio=studio,
    )
