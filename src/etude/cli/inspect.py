"""``etude inspect``: a step, a neuron, a weight, a prediction or a prompt of a real run, with the arithmetic."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from etude.cli.options import ModelFolder

Step = Annotated[
    int | None,
    typer.Option(help="The update to open. Default: the last one; for --prompt, the newest checkpoint."),
]
Node = Annotated[
    str | None,
    typer.Option(metavar="LAYER:UNIT", help="A node, or neuron, such as model.layers.2.mlp:17 (or 2:17)."),
]
Weight = Annotated[
    str | None,
    typer.Option(
        metavar="NAME[I,J]", help="A weight or bias, such as 'model.layers.0.self_attn.q_proj.weight[3,5]'."
    ),
]
Token = Annotated[
    str | None,
    typer.Option(
        metavar="ROW:POSITION", help="A prediction in the step's batch, and the token that followed."
    ),
]
Prompt = Annotated[str | None, typer.Option(help="Any text: what is predicted after it, and why.")]
Knob = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KNOB",
        help="With --prompt: change an activation or weight first, such as 'model.layers.0.mlp.post[17]*0'; repeat for "
        "several.",
    ),
]
Fork = Annotated[
    str | None, typer.Option(metavar="NAME", help="With --knob: write the changed network as a new run.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object instead of tables.")]
Picture = Annotated[Path | None, typer.Option("--png", help="Draw it as a picture in this file.")]
Dark = Annotated[bool, typer.Option("--dark", help="With --png: on a dark background.")]


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
    """Open a step of a run: replay it exactly, and show every number and where it came from.

    Without --node, --weight, --token or --prompt: the whole step, and whether it agrees with the recorded one. --node
    with --token: a neuron at a token of the step's batch. A model without steps opens with --prompt, --node or
    --weight.
    """
    from rich.console import Console

    from etude.errors import InputError
    from etude.watch import inspect as inspection

    options = {"--node": node, "--weight": weight, "--token": token, "--prompt": prompt}
    given = [name for name, value in options.items() if value is not None]
    if len(given) > 1 and given not in (["--node", "--prompt"], ["--node", "--token"]):
        raise InputError(f"give {given[0]} or {given[1]}, not both")
    if (knob and prompt is None and fork is None) or (fork is not None and not knob):
        raise InputError(
            "--knob and its effect belong together: give --knob with --prompt, or with --fork NAME"
        )
    if png is not None and (png.suffix != ".png" or not png.absolute().parent.is_dir()):
        raise InputError(f"--png takes a .png file in an existing folder, such as look.png; got '{png}'")
    if png is not None and (token or knob):
        raise InputError("--token and --knob have no picture: omit --png")
    if dark and png is None:
        raise InputError("--dark sets the background of a picture: give --png FILE with it")
    if fork is not None and given:
        raise InputError(f"--fork writes a run and shows nothing: omit {given[0]}")
    question = inspection.Question(model, step, node, weight, token, prompt, tuple(knob or ()), fork)
    inspection.show(question, Console(), as_json=as_json, png=png, theme="dark" if dark else "light")
