"""``etude inspect``: a step, a node, a weight, a prediction or a prompt of a real run, with the arithmetic."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from etude.cli.options import ModelFolder

Step = Annotated[
    int | None,
    typer.Option(
        help="Of or after this update: the last one unless told; of --prompt the newest checkpoint."
    ),
]
Node = Annotated[
    str | None, typer.Option(metavar="LAYER:UNIT", help="A node, such as model.layers.2.mlp:17 (or 2:17).")
]
Weight = Annotated[
    str | None,
    typer.Option(
        metavar="NAME[I,J]", help="A weight or bias, such as 'model.layers.0.self_attn.q_proj.weight[3,5]'."
    ),
]
Token = Annotated[
    str | None, typer.Option(metavar="ROW:POSITION", help="A prediction of the step's batch, and what came.")
]
Prompt = Annotated[str | None, typer.Option(help="Any text: what is predicted behind it, and why.")]
Knob = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KNOB",
        help="With --prompt: turn something first, such as 'model.layers.0.mlp.post[17]*0'; again for more.",
    ),
]
Fork = Annotated[
    str | None, typer.Option(metavar="NAME", help="With --knob: write the turned network as a new run.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object instead of tables.")]
Picture = Annotated[Path | None, typer.Option("--png", help="Draw what is shown to this file.")]
Dark = Annotated[bool, typer.Option("--dark", help="With --png: on a dark ground.")]


def inspect(
    model: ModelFolder,
    step: Step = None,
    node: Node = None,
    weight: Weight = None,
    token: Token = None,
    prompt: Prompt = None,
    knob: Knob = None,
    fork: Fork = None,
    as_json: Json = False,
    png: Picture = None,
    dark: Dark = False,
) -> None:
    """Open a step of a run: made again exactly, with every number and where it came from.

    Without --node, --weight, --token or --prompt: the whole step, and whether it reconciles. --node with --token: a
    node at a token of the step's batch. A checkpoint or any Hugging Face folder can be read with --prompt, and with
    --node along it.
    """
    from rich.console import Console

    from etude.errors import InputError
    from etude.watch import inspect as inspection

    asked = {"--node": node, "--weight": weight, "--token": token, "--prompt": prompt}
    given = [name for name, value in asked.items() if value is not None]
    if len(given) > 1 and given not in (["--node", "--prompt"], ["--node", "--token"]):
        raise InputError(f"one look at a time: give {given[0]} or {given[1]}, not both")
    if (knob and prompt is None and fork is None) or (fork is not None and not knob):
        raise InputError(
            "a knob needs something to be seen by: give --knob with --prompt, or with --fork NAME"
        )
    if png is not None and (png.suffix != ".png" or not png.absolute().parent.is_dir()):
        raise InputError(f"--png writes a picture into a folder that is there, such as look.png; got '{png}'")
    if png is not None and (token or knob):
        raise InputError("there is nothing to draw of --token or --knob: leave --png out")
    if dark and png is None:
        raise InputError("--dark is the ground of a picture: give --png FILE with it")
    if fork is not None and given:
        raise InputError(f"--fork writes a run and shows nothing: leave {given[0]} out")
    question = inspection.Question(model, step, node, weight, token, prompt, tuple(knob or ()), fork)
    inspection.show(question, Console(), as_json=as_json, png=png, theme="dark" if dark else "light")
