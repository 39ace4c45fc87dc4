"""``etude eval --tasks``: evaluate a model on public suites through lm-eval, and print the scores."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from etude.errors import InputError
from etude.evaluate.examined_run import ExaminedRun
from etude.files import json_safe
from etude.interop.public_tables import public_table
from etude.run.checkpoints import find_checkpoint
from etude.show.progress import data_progress


@dataclass(frozen=True)
class AskedPublicly:
    """limit: the first items of each task only; local: its rows; covered: only items whose words training had."""

    path: Path
    tasks: Sequence[str]
    limit: int | None = None
    local: Path | None = None
    covered: bool = False
    as_json: bool = False


def public(asked: AskedPublicly, console: Console) -> None:
    """Ask the public suites of lm-eval.

    Raises:
        InputError: the library is not installed, a task is unknown, its rows cannot be had, or the training text is
            not known whose words are asked for.
    """
    from etude.interop.public_suites import public_suite

    folder = find_checkpoint(asked.path)
    run = ExaminedRun.of(asked.path) if asked.covered else None
    if asked.covered and run is None:
        raise InputError(
            f"--covered looks at the text that a run was trained on, and {asked.path} is a model folder: leave it out, "
            "or name a run"
        )
    with data_progress(console) as progress:
        found = public_suite(
            folder,
            asked.tasks,
            limit=asked.limit,
            local=asked.local,
            training_text=None if run is None else run.data.documents("train"),
            report=lambda done, of: progress("asking", done, of),
        )
    if asked.as_json:
        print(json.dumps(json_safe([one.to_json() for one in found]), ensure_ascii=False, allow_nan=False))
    else:
        console.print(public_table(found))
