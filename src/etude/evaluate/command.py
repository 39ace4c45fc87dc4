"""``etude eval``: how well a model predicts held-out text, and which abilities it has."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from etude.config import DeviceSettings
from etude.data.corpus.beginning import beginning_of
from etude.data.files import key_of
from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.device import choose_device, git_commit
from etude.errors import InputError
from etude.evaluate.answerers import ItemScore, Report
from etude.evaluate.examination import Examination
from etude.evaluate.examined_run import ExaminedRun
from etude.evaluate.items import Item
from etude.evaluate.network_answerer import ModelAnswerer
from etude.evaluate.output import Output, print_output
from etude.evaluate.questions import (
    Questions,
    counting_for,
    questions_for,
    questions_without_text,
    suites_for,
)
from etude.evaluate.records import FILE, read_records, write_records
from etude.evaluate.results import ProbeResult
from etude.evaluate.resumable_evaluation import PartsAnswerer
from etude.evaluate.resumable_parts import ALONE, Workers
from etude.evaluate.whole_text import MEASURED_BYTES, WholeText, measure_other_text, measure_whole_text
from etude.model.build import build_model
from etude.model.config import ModelConfig
from etude.model.folder import load_config
from etude.places import cache_folder
from etude.run import RunFolder
from etude.run.checkpoints import find_checkpoint, list_checkpoints, step_of
from etude.setting_types import Auto
from etude.show.progress import data_progress
from etude.train.load import load_trained

RANDOM_SEEDS = range(1_000_003, 1_000_006)
"""Of the networks with random weights: none that a run is likely to have."""


@dataclass(frozen=True)
class Asked:
    """What a person wants to know.

    suites: none for what fits the text; every_checkpoint: the probes of each that is kept, for curves, and not the text
    as a whole; text: sources to be measured instead, without any probe; expect: the hash that the questions must have
    ("" for any).
    """

    path: Path
    suites: tuple[str, ...] = ()
    every_checkpoint: bool = False
    num_items: int = 256
    text: tuple[str, ...] = ()
    expect: str = ""
    workers: Workers = ALONE
    as_json: bool = False


def evaluate(asked: Asked, console: Console) -> None:
    """Ask, write down what is found of a run, and print it.

    Raises:
        InputError: nothing to examine at the path, its text is gone, or it yields other questions than expected.
    """
    run = ExaminedRun.of(asked.path)
    if asked.text:
        _evaluate_text(asked, run, console)
        return
    if run is None:
        _evaluate_folder(asked, console)
        return
    checkpoints = _checkpoints(asked, run)
    config = load_config(checkpoints[-1])
    with console.status("making the questions") if console.is_terminal else nullcontext():
        suites = asked.suites or suites_for(run.settings)
        questions = questions_for(
            run.data,
            suites,
            asked.num_items,
            config.max_position_embeddings,
            none_will_do=True,
        )
    if asked.every_checkpoint:
        questions.require_some("leave --steps out for the measures of the text")
    if asked.expect and questions.hash != asked.expect:
        raise InputError(
            f"the questions are others ({questions.hash}) than were fixed before training ({asked.expect}): the text, "
            "the probes of a plugin, or Etude has changed since"
        )
    results: list[ProbeResult] = []
    with _kept(run.folder / "derived" / "evaluation") as within, data_progress(console) as progress:
        if questions.probes:
            results = _asked_of(checkpoints, questions, run, within, asked.workers, progress)
        whole = (
            None if asked.every_checkpoint else _whole_text(asked, run, checkpoints[-1], within, questions)
        )
    step = step_of(checkpoints[-1])
    where = run.where(step, config)("")
    output = Output(checkpoints[-1], questions, results, whole, where.seed, step, where.commit)
    print_output(output, asked.as_json, console)


def _asked_of(
    checkpoints: Sequence[Path],
    questions: Questions,
    run: ExaminedRun,
    within: Path,
    workers: Workers,
    progress: Any,
) -> list[ProbeResult]:
    """What the last of the checkpoints answers; what each of them answers is written down."""
    random = _random(load_config(checkpoints[-1]), run.data.tokenizer, workers)
    examination = Examination(questions.probes, counting_for(run.data, run.ladder), random)
    results: list[ProbeResult] = []
    done = _steps_done(run, questions)
    for checkpoint in checkpoints:
        if checkpoint != checkpoints[-1] and step_of(checkpoint) in done:
            continue
        report = _report_to(progress, f"step {step_of(checkpoint)}")
        results = examination.results(PartsAnswerer(checkpoint, within, workers), report)
        _write(run, questions, results, checkpoint)
    return results


def _whole_text(
    asked: Asked, run: ExaminedRun, checkpoint: Path, within: Path, questions: Questions
) -> WholeText | None:
    """The measures of the text; where they cannot be had, the reason stands with what else is left out.

    Raises:
        InputError: nor is there a probe, so that nothing can be shown.
    """
    try:
        return measure_whole_text(run, checkpoint, within, asked.workers)
    except InputError as error:
        questions.left_out["the text as a whole"] = str(error)
        questions.require_some()
        return None


@dataclass(frozen=True)
class RandomAnswerer:
    """A network of this shape with random weights, in memory only while it answers."""

    config: ModelConfig
    tokenizer: EtudeTokenizer
    seed: int
    threads: int | Auto = "auto"

    def answer(self, items: Sequence[Item], report: Report | None = None) -> list[ItemScore]:
        # The network before was asked with one process's share of them.
        choose_device(DeviceSettings(threads=self.threads))
        model = build_model(self.config, seed=self.seed)
        return ModelAnswerer(model, self.tokenizer).answer(items, report)


def _random(config: ModelConfig, tokenizer: EtudeTokenizer, workers: Workers) -> list[RandomAnswerer]:
    """Several, for one of them may happen to prefer something."""
    return [RandomAnswerer(config, tokenizer, seed, workers.threads) for seed in RANDOM_SEEDS]


def _evaluate_text(asked: Asked, run: ExaminedRun | None, console: Console) -> None:
    """What a model makes of a text that a person names; no probe is asked."""
    folder = find_checkpoint(asked.path) if run is None else _checkpoints(asked, run)[-1]
    documents = beginning_of(asked.text, MEASURED_BYTES)
    kept = cache_folder() / "evaluation" / key_of([str(folder.resolve()), documents])
    with _kept(kept) as within, data_progress(console) as progress:
        whole = measure_other_text(
            folder, documents, run, within, asked.workers, _report_to(progress, "measuring")
        )
    seed, step = (None, None) if run is None else (run.settings.run.seed, step_of(folder))
    print_output(
        Output(folder, Questions({}, {}), [], whole, seed, step, git_commit()), asked.as_json, console
    )


def _checkpoints(asked: Asked, run: ExaminedRun) -> list[Path]:
    """In order of steps; of a run the newest, or every one that is kept."""
    if asked.path.resolve() != run.folder.resolve():
        if asked.every_checkpoint:
            raise InputError(
                f"{asked.path} is one checkpoint, and --steps all asks every one: name the run, {run.folder}"
            )
        return [asked.path]
    found = list_checkpoints(run.folder / "checkpoints")
    if not found:
        state = RunFolder.open(run.folder).status().get("state")
        if state in ("finished", "stopped", "failed"):
            raise InputError(
                f"{run.folder} has {state}, and no checkpoint of it is left: restore its folder checkpoints, or train "
                "it again"
            )
        raise InputError(f"{run.folder} has no checkpoint yet: wait for its first")
    return list(found) if asked.every_checkpoint else [found[-1]]


def _steps_done(run: ExaminedRun, questions: Questions) -> set[int]:
    """Checkpoints whose answers to all of these very questions are written down."""
    if not (run.folder / FILE).is_file():
        return set()
    answered: dict[int, set[tuple[str, str]]] = {}
    for record in read_records(run.folder, none_will_do=True).records:
        answered.setdefault(record.where.step, set()).add((record.title, record.items))
    asked = {(probe.title, probe.hash) for probe in questions.probes}
    return {step for step, known in answered.items() if asked <= known}


def _write(run: ExaminedRun, questions: Questions, results: Sequence[ProbeResult], checkpoint: Path) -> None:
    where = run.where(step_of(checkpoint), load_config(checkpoint))
    by_probe = {id(result.probe): result for result in results}
    for suite, probes in questions.by_suite.items():
        write_records(run.folder, [by_probe[id(probe)] for probe in probes], where(suite))


def _evaluate_folder(asked: Asked, console: Console) -> None:
    """A model folder without a run: its training text is not known, so counting cannot be held against it."""
    folder = find_checkpoint(asked.path)
    if asked.every_checkpoint or asked.expect:
        raise InputError(f"{asked.path} is a model folder, which has no steps: leave --steps out")
    trained = load_trained(folder, asked.workers.threads)
    questions = questions_without_text(asked.suites or ("world",), asked.num_items)
    random = _random(trained.model.config, trained.tokenizer, asked.workers)
    examination = Examination(questions.probes, None, random)
    with data_progress(console) as progress:
        results = examination.results(
            ModelAnswerer(trained.model, trained.tokenizer), _report_to(progress, "asking")
        )
    print_output(Output(folder, questions, results, None, None, None, git_commit()), asked.as_json, console)


def _report_to(progress: Any, stage: str) -> Report:
    """Return a listener that shows progress as that of ``stage``."""
    return lambda done, of: progress(stage, done, of)


@contextmanager
def _kept(folder: Path) -> Iterator[Path]:
    """Where answers are kept until all are written down: an evaluation that is interrupted goes on from them."""
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
