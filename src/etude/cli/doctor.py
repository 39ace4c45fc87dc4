"""``etude doctor``: test this machine, or examine a run or a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from etude.cli.options import Overrides

Json = Annotated[bool, typer.Option("--json", help="One JSON object instead of tables.")]


Run = Annotated[
    Path | None,
    typer.Argument(
        metavar="[RUN | MODEL]",
        help="A run, or a model without one, to examine instead of this machine.",
        show_default=False,
    ),
]


Verify = Annotated[
    bool,
    typer.Option(
        "--verify",
        help="Compare the files of RUN with their checksums instead, one line for each.",
    ),
]


TextFile = Annotated[
    Path | None,
    typer.Option("--text", help="With MODEL: a text on which its loss, neurons and heads are measured."),
]


def doctor(
    run: Run = None,
    overrides: Overrides = None,
    verify: Verify = False,
    text: TextFile = None,
    as_json: Json = False,
) -> None:
    """Test the device that a run would choose, and list what this machine has and lacks; or find the problems of RUN.

    The exit code is 1 if there is a problem.
    """
    from etude.pretrained.source_names import is_model_source

    if run is not None and not verify and is_model_source(run):
        _examine_model(run, text, overrides, as_json)
        return
    if text is not None:
        from etude.errors import InputError

        raise InputError(
            "--text examines a model on a text: name the model, as in  etude doctor MODEL --text FILE"
        )
    if run is not None:
        _examine_run(run, overrides, as_json, verify)
        return
    if verify:
        from etude.errors import InputError

        raise InputError("--verify compares the files of a run: name it, as in  etude doctor RUN --verify")
    from etude.config import load_settings
    from etude.diagnose.machine import report as examination

    examination.require_machine_settings(overrides or [])
    report = examination.examine(load_settings(None, overrides or []))
    examination.show(report, as_json=as_json)
    if not report.healthy:
        raise typer.Exit(1)


def _examine_model(model: Path, text: Path | None, overrides: list[str] | None, as_json: bool) -> None:
    from rich.console import Console

    from etude.diagnose.model import diagnose_model
    from etude.diagnose.run.verdicts import print_verdicts
    from etude.errors import InputError

    if overrides:
        raise InputError("a model is examined without settings: omit --set")
    console = Console()
    with console.status("reading the model"):
        verdicts = diagnose_model(model, text)
    if print_verdicts(model, verdicts, console, json_lines=as_json, findings=True):
        raise typer.Exit(1)


def _examine_run(run: Path, overrides: list[str] | None, as_json: bool, verify: bool) -> None:
    from rich.console import Console

    from etude.errors import InputError

    if overrides:
        raise InputError("a run is examined with its own settings: omit --set")
    if verify:
        from etude.diagnose.run.printed_checks import print_checks

        if not print_checks(run, Console(), json_lines=as_json):
            raise typer.Exit(1)
        return
    from etude.diagnose.run import verdicts

    if verdicts.show(run, Console(), json_lines=as_json):
        raise typer.Exit(1)
