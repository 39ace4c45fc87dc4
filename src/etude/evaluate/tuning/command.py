"""``etude eval RUN --suite tuning``: what the tuning of a run gained and what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

from etude.errors import InputError
from etude.evaluate.resumable_parts import ALONE, Workers
from etude.evaluate.tuning.examined import MOST_QUESTIONS
from etude.evaluate.tuning.report import tuned_run
from etude.evaluate.tuning.tables import print_reports
from etude.pretrained.resolve_source import model_folder
from etude.run.checkpoints import checkpoint_of_step, list_checkpoints, step_of
from etude.run.folder import is_of_run, is_run
from etude.show.progress import data_progress

SUITE = "tuning"


@dataclass(frozen=True)
class TuningRequest:
    """The options. steps: of the checkpoints; empty for the newest, None for every one."""

    path: Path
    steps: tuple[int, ...] | None = ()
    most_questions: int | None = None
    workers: Workers = ALONE
    as_json: bool = False


def evaluate_tuning(request: TuningRequest, console: Console) -> None:
    """Report on checkpoints of a run, record the reports, and print them.

    Raises:
        InputError: the run was not tuned on conversations or pairs, or has no such checkpoint.
    """
    if request.workers.processes != 1:
        raise InputError("the suite tuning runs in one process: omit --processes")
    run, checkpoints = _checkpoints(request)
    with data_progress(console) as progress:
        tuned = tuned_run(run, request.most_questions or MOST_QUESTIONS, request.workers.threads)
        reports = [
            tuned.report(
                folder,
                progress=partial(progress, f"step {step_of(folder)}"),
                probes=folder == checkpoints[-1],  # the probes of general abilities take some seconds
            )
            for folder in checkpoints
        ]
    print_reports(reports, request.as_json, console)


def _checkpoints(request: TuningRequest) -> tuple[Path, Sequence[Path]]:
    """Return the run and its requested checkpoints, in the order of steps."""
    path = request.path
    if not is_run(path):
        folder = model_folder(path)
        if not is_of_run(folder):
            raise InputError(
                f"{path} is a model without a run, and the suite tuning asks the held-out questions of a run: name a "
                "run that was tuned on conversations"
            )
        if request.steps is None or request.steps:
            raise InputError(f"{path} is one checkpoint: name its run, or omit --step and --steps")
        return folder.resolve().parent.parent, [folder]
    folders = {step_of(folder): folder for folder in list_checkpoints(path / "checkpoints")}
    later = {step: folder for step, folder in folders.items() if step > 0}
    if not later:
        raise InputError(f"{path} has no checkpoint after its base yet: wait for its first")
    if request.steps is None:
        return path, list(later.values())
    steps = sorted(set(request.steps)) or [max(later)]
    return path, [checkpoint_of_step(path, str(step), folders) for step in steps]
