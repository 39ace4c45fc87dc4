"""``etude doctor``: whether this machine computes rightly, and what it has."""

from __future__ import annotations

from typing import Annotated

import typer

from etude.cli.options import Overrides

Json = Annotated[bool, typer.Option("--json", help="One JSON object instead of tables.")]


def doctor(overrides: Overrides = None, as_json: Json = False) -> None:
    """Test the device that a run would choose, and say what this machine has and what it lacks."""
    from etude.config import load_settings
    from etude.workflow import doctor as examination

    examination.require_machine_settings(overrides or [])
    report = examination.examine(load_settings(None, overrides or []))
    examination.show(report, as_json=as_json)
    if not report.healthy:
        raise typer.Exit(1)
