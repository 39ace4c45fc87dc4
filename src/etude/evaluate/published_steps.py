"""``etude eval FOLDER --steps all``: the scores of every saved version of a model that Etude did not train.

Nothing is written into the folder. The scores are recorded in Etude's cache (:mod:`etude.evaluate.published_scores`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from etude.device import git_commit
from etude.errors import InputError
from etude.evaluate.named_text import named_text
from etude.evaluate.null_comparison import NullComparison
from etude.evaluate.output import UNKNOWN, Output
from etude.evaluate.published_scores import scores_folder, write_scores
from etude.evaluate.questions import Questions, questions_from, without_claims
from etude.evaluate.random_null import random_null, usual_items
from etude.evaluate.results import ProbeResult
from etude.evaluate.resumable_evaluation import PartsAnswerer
from etude.evaluate.tables import result_tables
from etude.evaluate.together import (
    ExaminedModel,
    Remembered,
    TogetherRequest,
    probe_source,
    report_to,
    scratch_folder,
)
from etude.messages import command
from etude.pretrained.resolve_source import model_folder
from etude.run.published_history import PublishedHistory
from etude.show.lines import print_line
from etude.show.named_table import Column, NamedTable
from etude.show.progress import data_progress
from etude.untrusted import shown

COLUMNS = 8
"""Most steps in the table; the JSON has all."""


@dataclass(frozen=True)
class Steps:
    """The answers of every version of a model. notes: what limits the conclusions."""

    history: PublishedHistory
    questions: Questions
    results: Mapping[int, list[ProbeResult]]
    probes_from: dict[str, Any] | None
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints."""
        steps = []
        for step, results in self.results.items():
            folder = self.history.checkpoints[step]
            output = Output(folder, self.questions, results, None, None, step, git_commit()).to_json()
            steps.append(
                {
                    "step": step,
                    "checkpoint": output["checkpoint"],
                    "weights": self.history.hashes[step],
                    "same_as": self.history.duplicates.get(step),
                    "probes": output["probes"],
                }
            )
        return {
            "history": str(self.history.path),
            "notes": list(self.notes),
            "questions": self.questions.hash,
            "commit": git_commit(),
            "probes_from": self.probes_from,
            "left_out": self.questions.skipped,
            "steps": steps,
        }


def evaluate_history(request: TogetherRequest, console: Console) -> None:
    """Put the same items to every saved version of a model, and record and print the scores by step.

    Raises:
        InputError: the folder holds no such versions, one of them is damaged, or no probe is left.
    """
    history = require_history(request)
    checkpoints = history.checkpoints
    last = max(checkpoints)
    model = ExaminedModel.of(checkpoints[last], history.path.name)
    suites = request.suites or (("text",) if request.text else ("world",))
    random = random_null(model.config, model.tokenizer, request.workers.threads)
    results: dict[int, list[ProbeResult]] = {}
    with (
        named_text(request.text) if request.text else nullcontext() as text,
        data_progress(console) as progress,
    ):
        source, counting = probe_source([model], text)
        most = request.num_items or usual_items(model.config)
        questions = without_claims(questions_from(source, suites, most))
        questions.require_some()
        null = None if counting is None else Remembered(counting())
        comparison = NullComparison(questions.probes, null, random.networks, random.num_items)
        with scratch_folder(history.path, questions.hash) as scratch:
            for step, folder in checkpoints.items():
                if (earlier := history.duplicates.get(step)) is not None:
                    results[step] = results[earlier]
                    if scores_folder(folder) == scores_folder(checkpoints[earlier]):
                        continue
                else:
                    answerer = PartsAnswerer(folder, scratch, request.workers)
                    results[step] = comparison.results(answerer, report_to(progress, f"step {step}"))
                write_scores(folder, step, questions, results[step])
        about = None if text is None else text.to_json()
        lines = (text.line,) if text is not None else ()
    notes = (*lines, *history.notes, UNKNOWN, *((random.reason,) if random.reason else ()))
    steps = Steps(history, questions, results, about, notes)
    if request.as_json:
        print(json.dumps(steps.to_json(), ensure_ascii=False, allow_nan=False))
        return
    console.print(table_by_step(steps))
    for table in result_tables(results[last]):
        console.print(table)
    skipped = [f"skipped: {title}: {why}" for title, why in questions.skipped.items()]
    recorded = (
        f"recorded in {scores_folder(checkpoints[last]).parent}; {command('studio', history.path)} draws them"
    )
    of_last = f"questions {questions.hash}; the lower table is of step {last}"
    for line in (*skipped, *notes, of_last, recorded):
        print_line(console, line)


def require_history(request: TogetherRequest) -> PublishedHistory:
    """Return the history that the request names.

    Raises:
        InputError: there are several models, or the folder holds no saved versions.
    """
    if len(request.paths) != 1:
        raise InputError("--steps all is for one run or one folder of saved versions: name it alone")
    history = PublishedHistory.at(request.paths[0])
    if history is None:
        model_folder(request.paths[0])  # says what is wrong, if it is no model either
        raise InputError(
            f"{request.paths[0]} has no steps: --steps all takes a run, or a folder that holds model folders such as "
            "step1000 or checkpoint-500"
        )
    return history


def table_by_step(steps: Steps) -> NamedTable:
    """Make a table with the share right of each probe at each step, thinned evenly where there are many."""
    every = list(steps.results)
    chosen = every
    if len(every) > COLUMNS:
        chosen = [every[round(at * (len(every) - 1) / (COLUMNS - 1))] for at in range(COLUMNS)]
    rows = []
    for at, probe in enumerate(steps.questions.probes):
        shares = [steps.results[step][at].model.accuracy.value for step in chosen]
        cells = [f"{share:.2f}" for share in shares]
        rows.append((Text(shown(probe.title)), [Text(cell) for cell in (*cells, f"{probe.chance:.2f}")]))
    headings = (*(f"step {step}" for step in chosen), "chance")
    return NamedTable("share right", [Column(heading, right=True) for heading in headings], rows)
