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
from etude.pretrained.resolve_source import model_folder
from etude.show.progress import data_progress


@dataclass(frozen=True)
class PublicRequest:
    """The options of ``etude eval --tasks``.

    limit: only the first items of each task; local: files with its rows; covered: only items with known words.
    """

    path: Path
    tasks: Sequence[str]
    limit: int | None = None
    local: Path | None = None
    covered: bool = False
    as_json: bool = False


def public(request: PublicRequest, console: Console) -> None:
    """Evaluate a model on public suites of lm-eval, and print the scores.

    Raises:
        InputError: the library is not installed, a task is unknown, its rows are unavailable, or the training text is
            needed and unknown.
    """
    from etude.interop.public_suites import public_suite

    folder = model_folder(request.path)
    run = ExaminedRun.of(request.path) if request.covered else None
    if request.covered and run is None:
        raise InputError(
            f"--covered needs the text that a run was trained on, and {request.path} is a model folder: omit it, or "
            "name a run"
        )
    with data_progress(console) as progress:
        scores = public_suite(
            folder,
            request.tasks,
            limit=request.limit,
            local=request.local,
            training_text=None if run is None else run.data.documents("train"),
            report=lambda done, total: progress("scoring", done, total),
        )
    if request.as_json:
        print(
            json.dumps(json_safe([score.to_json() for score in scores]), ensure_ascii=False, allow_nan=False)
        )
    else:
        console.print(public_table(scores))
