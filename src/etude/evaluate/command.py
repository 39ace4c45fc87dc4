"""``etude eval``: measure how well a model predicts held-out text, and which abilities it has."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from etude.data.corpus.beginning import beginning_of
from etude.data.files import key_of
from etude.device import git_commit
from etude.errors import InputError
from etude.evaluate.answerers import Report
from etude.evaluate.examined_run import ExaminedRun
from etude.evaluate.network_answerer import ModelAnswerer
from etude.evaluate.null_comparison import NullComparison
from etude.evaluate.output import UNKNOWN, Output, print_output
from etude.evaluate.questions import (
    ProbeSource,
    Questions,
    counting_for,
    questions_for,
    questions_from,
    suites_for,
    without_claims,
)
from etude.evaluate.random_null import random_null, usual_items
from etude.evaluate.records import FILE, read_records, write_records
from etude.evaluate.results import ProbeResult
from etude.evaluate.resumable_evaluation import PartsAnswerer
from etude.evaluate.resumable_parts import ALONE, Workers
from etude.evaluate.whole_text import MEASURED_BYTES, WholeText, measure_other_text, measure_whole_text
from etude.model.folder import load_config
from etude.places import cache_folder
from etude.pretrained.load_model import load_trained
from etude.pretrained.resolve_source import model_folder
from etude.run import RunFolder
from etude.run.checkpoints import list_checkpoints, step_of
from etude.show.progress import data_progress


@dataclass(frozen=True)
class EvaluationRequest:
    """The options of an evaluation.

    suites: empty for those that fit the text; every_checkpoint: answer the probes with every kept checkpoint, for
    curves, without the measures of the whole text; num_items: most items of a probe, None for the usual number; text:
    sources to measure instead, without any probe; expect: the required hash of the questions ("" for any).
    """

    path: Path
    suites: tuple[str, ...] = ()
    every_checkpoint: bool = False
    num_items: int | None = None
    text: tuple[str, ...] = ()
    expect: str = ""
    workers: Workers = ALONE
    as_json: bool = False


def evaluate(request: EvaluationRequest, console: Console) -> None:
    """Evaluate, record the scores of a run, and print them.

    Raises:
        InputError: nothing to evaluate at the path, its text is missing, or its questions differ from the expected.
    """
    run = ExaminedRun.of(request.path)
    if request.text:
        _evaluate_text(request, run, console)
        return
    if run is None:
        _evaluate_folder(request, console)
        return
    checkpoints = _checkpoints(request, run)
    config = load_config(checkpoints[-1])
    with console.status("making the questions") if console.is_terminal else nullcontext():
        suites = request.suites or suites_for(run.settings)
        questions = questions_for(
            run.data,
            suites,
            request.num_items or usual_items(config),
            config.max_position_embeddings,
            allow_none=True,
        )
    if request.every_checkpoint:
        questions.require_some("omit --steps for the measures of the text")
    if request.expect and questions.hash != request.expect:
        raise InputError(
            f"the questions ({questions.hash}) differ from those fixed before training ({request.expect}): the text, "
            "the probes of a plugin, or Etude has changed since"
        )
    results: list[ProbeResult] = []
    with (
        _resumable(run.folder / "derived" / "evaluation") as scratch,
        data_progress(console) as progress,
    ):
        if questions.probes:
            results = _answers(checkpoints, questions, run, scratch, request.workers, progress)
        whole = (
            None
            if request.every_checkpoint
            else _whole_text(request, run, checkpoints[-1], scratch, questions)
        )
    step = step_of(checkpoints[-1])
    where = run.where(step, config)("")
    reason = random_null(config, run.data.tokenizer, request.workers.threads).reason if results else ""
    notes = (reason,) if reason else ()
    output = Output(checkpoints[-1], questions, results, whole, where.seed, step, where.commit, notes)
    print_output(output, request.as_json, console)


def _answers(
    checkpoints: Sequence[Path],
    questions: Questions,
    run: ExaminedRun,
    scratch: Path,
    workers: Workers,
    progress: Any,
) -> list[ProbeResult]:
    """Record the answers of every checkpoint, and return those of the last."""
    random = random_null(load_config(checkpoints[-1]), run.data.tokenizer, workers.threads)
    counting = counting_for(run.data, run.ladder)
    comparison = NullComparison(questions.probes, counting, random.networks, random.num_items)
    results: list[ProbeResult] = []
    done = _steps_done(run, questions)
    for checkpoint in checkpoints:
        if checkpoint != checkpoints[-1] and step_of(checkpoint) in done:
            continue
        report = _report_to(progress, f"step {step_of(checkpoint)}")
        results = comparison.results(PartsAnswerer(checkpoint, scratch, workers), report)
        _write(run, questions, results, checkpoint)
    return results


def _whole_text(
    request: EvaluationRequest, run: ExaminedRun, checkpoint: Path, scratch: Path, questions: Questions
) -> WholeText | None:
    """Return the measures of the whole text; if impossible, list the reason with whatever else is skipped.

    Raises:
        InputError: there is no probe either, so that nothing can be shown.
    """
    try:
        return measure_whole_text(run, checkpoint, scratch, request.workers)
    except InputError as error:
        questions.skipped["the text as a whole"] = str(error)
        questions.require_some()
        return None


def _evaluate_text(request: EvaluationRequest, run: ExaminedRun | None, console: Console) -> None:
    """Measure a text that the user names, without any probe."""
    folder = model_folder(request.path) if run is None else _checkpoints(request, run)[-1]
    documents = beginning_of(request.text, MEASURED_BYTES)
    cache = cache_folder() / "evaluation" / key_of([str(folder.resolve()), documents])
    with _resumable(cache) as scratch, data_progress(console) as progress:
        whole = measure_other_text(
            folder, documents, run, scratch, request.workers, _report_to(progress, "measuring")
        )
    seed, step = (None, None) if run is None else (run.settings.run.seed, step_of(folder))
    print_output(
        Output(folder, Questions({}, {}), [], whole, seed, step, git_commit()), request.as_json, console
    )


def _checkpoints(request: EvaluationRequest, run: ExaminedRun) -> list[Path]:
    """Return the requested checkpoints in the order of steps: the newest of a run, or every one that is kept."""
    if request.path.resolve() != run.folder.resolve():
        if request.every_checkpoint:
            raise InputError(
                f"{request.path} is one checkpoint, and --steps all uses every one: name the run, {run.folder}"
            )
        return [request.path]
    checkpoints = list_checkpoints(run.folder / "checkpoints")
    if not checkpoints:
        state = RunFolder.open(run.folder).status().get("state")
        if state in ("finished", "stopped", "failed"):
            raise InputError(
                f"{run.folder} has {state}, and none of its checkpoints is left: restore its folder checkpoints, or "
                "train it again"
            )
        raise InputError(f"{run.folder} has no checkpoint yet: wait for its first")
    return list(checkpoints) if request.every_checkpoint else [checkpoints[-1]]


def _steps_done(run: ExaminedRun, questions: Questions) -> set[int]:
    """Return the steps of checkpoints whose answers to exactly these questions are recorded."""
    if not (run.folder / FILE).is_file():
        return set()
    answered: dict[int, set[tuple[str, str]]] = {}
    for record in read_records(run.folder, allow_none=True).records:
        answered.setdefault(record.where.step, set()).add((record.title, record.items))
    requested = {(probe.title, probe.hash) for probe in questions.probes}
    return {step for step, known in answered.items() if requested <= known}


def _write(run: ExaminedRun, questions: Questions, results: Sequence[ProbeResult], checkpoint: Path) -> None:
    where = run.where(step_of(checkpoint), load_config(checkpoint))
    by_probe = {id(result.probe): result for result in results}
    for suite, probes in questions.by_suite.items():
        write_records(run.folder, [by_probe[id(probe)] for probe in probes], where(suite))


def _evaluate_folder(request: EvaluationRequest, console: Console) -> None:
    """Evaluate a model folder without a run: its training text is unknown, so there is no counting to compare with."""
    folder = model_folder(request.path)
    if request.every_checkpoint or request.expect:
        raise InputError(f"{request.path} is a model folder, which has no steps: omit --steps")
    trained = load_trained(folder, request.workers.threads)
    config = trained.model.config
    most = request.num_items or usual_items(config)
    nothing = ProbeSource(None, None, 0)
    questions = without_claims(questions_from(nothing, request.suites or ("world",), most))
    random = random_null(config, trained.tokenizer, request.workers.threads)
    comparison = NullComparison(questions.probes, None, random.networks, random.num_items)
    with data_progress(console) as progress:
        results = comparison.results(
            ModelAnswerer(trained.model, trained.tokenizer), _report_to(progress, "scoring")
        )
    notes = (UNKNOWN, random.reason) if random.reason else (UNKNOWN,)
    output = Output(folder, questions, results, None, None, None, git_commit(), notes)
    print_output(output, request.as_json, console)


def _report_to(progress: Any, stage: str) -> Report:
    """Return a callback that shows progress under the name ``stage``."""
    return lambda done, of: progress(stage, done, of)


@contextmanager
def _resumable(folder: Path) -> Iterator[Path]:
    """Keep answers in ``folder`` until all are recorded, so that an interrupted evaluation resumes from them."""
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
