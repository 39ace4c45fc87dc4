"""Run public benchmarks by their names in the lm-eval library, with data from the Hub or from local files.

Each task's own figures are those of the library. For tasks that choose among texts, Etude's figures stand beside them:
ties as one half, an interval, chance, and the choice by mean log-probability per token.
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse
from urllib.request import getproxies

import numpy as np

from etude.errors import InputError
from etude.evaluate.answerers import Report
from etude.evaluate.resumable_parts import identity_of
from etude.evaluate.statistics import Estimate, credit, mean_of_shares, proportion
from etude.interop.covered_items import Covered, covered_items
from etude.interop.local_tasks import leaf_tasks, local_task
from etude.system import silent_stderr
from etude.untrusted import shown

if TYPE_CHECKING:
    from etude.interop.lm_eval_model import EtudeLM

SCHEMA = 1
_RESAMPLINGS = 1000
"""Resamplings for the library's standard errors of metrics that are not means."""


@dataclass(frozen=True)
class Choices:
    """Etude's figures for a task that chooses among texts.

    whole: share right by the texts' whole probabilities, ties as one half; per_token: by their mean log-probabilities
    per token, which gives a model of uniform logits `chance`.
    """

    chance: float
    whole: Estimate
    per_token: Estimate


@dataclass(frozen=True)
class SuiteScore:
    """The score of one task, or the mean over the `tasks` of a group with equal weights.

    figures: the library's own, such as acc, with their standard errors (None if it has none); left_out: items skipped
    for words that the training text lacks, if requested. A task without remaining items has no figures.
    """

    task: str
    items: int
    version: str
    figures: Mapping[str, tuple[float, float | None]]
    choices: Choices | None
    tasks: int = 1
    left_out: int = 0

    def to_json(self) -> dict[str, Any]:
        return {"schema": SCHEMA, **asdict(self)}


def public_suite(
    model_folder: Path,
    tasks: Sequence[str],
    *,
    limit: int | None = None,
    local: Path | None = None,
    batch_size: int = 16,
    begin_documents: bool | None = None,
    kept: Path | None = None,
    training_text: Iterable[bytes] | None = None,
    report: Report | None = None,
) -> list[SuiteScore]:
    """Score `tasks` (names of tasks, groups and tags of the library), in the library's order.

    The mean of each group or tag follows if all of its tasks choose among texts.
    limit: only the first items of each task; local: a folder or zip whose files replace the data sets
    (`etude.interop.local_tasks`), so that nothing is downloaded; begin_documents: see `EtudeLM`; kept: a folder where
    the model's answers are saved as they arrive, so that an interrupted evaluation resumes; training_text: the
    documents that the model was trained on, in UTF-8: items with other words are skipped.
    Raises InputError if the library is not installed, for an unknown task, if rows are unavailable, and if no item
    remains.
    """
    if local is None:
        _stay_offline()
    require_lm_eval()
    from etude.interop.lm_eval_model import EtudeLM
    from etude.pretrained.load_model import load_trained

    if not tasks:
        raise InputError("no tasks are named: type some of lm-eval's, such as blimp,lambada_openai,hellaswag")
    trained = load_trained(model_folder)
    manager = _manager()
    names = leaf_tasks(tasks, manager.task_index)
    with TemporaryDirectory(prefix="etude-") as work:
        specs = list(names)
        if local is not None:
            specs = [str(local_task(name, manager.task_index[name], local, Path(work))) for name in names]
        loaded = _load(manager, names, specs, local)
        covered = None if training_text is None else covered_items(loaded, training_text)
        model = EtudeLM(
            trained.model,
            trained.tokenizer,
            batch_size=batch_size,
            begin_documents=begin_documents,
            report=report,
        )
        answers = None if kept is None else _answers(kept, trained.folder, begin_documents)
        scores = _scores(loaded, covered, limit, model, manager, answers)
    groups = {name: leaf_tasks([name], manager.task_index) for name in dict.fromkeys(tasks)}
    means = [
        _mean(name, [scores[leaf] for leaf in leaves]) for name, leaves in groups.items() if len(leaves) > 1
    ]
    return [*scores.values(), *(mean for mean in means if mean is not None)]


def _scores(
    tasks: Mapping[str, Any],
    covered: Mapping[str, Covered] | None,
    limit: int | None,
    model: EtudeLM,
    manager: Any,
    answers: Path | None,
) -> dict[str, SuiteScore]:
    """Score every task, by name; tasks without a covered item only have the number of skipped items."""
    from lm_eval import simple_evaluate

    requested = (
        tasks if covered is None else {name: task for name, task in tasks.items() if covered[name].numbers}
    )
    with silent_stderr():  # hide progress bars and git's warnings; what matters is raised as an exception
        evaluated = simple_evaluate(
            model,
            tasks=list(requested.values()),
            limit=limit if covered is None else None,
            samples=None
            if covered is None
            else {name: list(covered[name].numbers[:limit]) for name in requested},
            bootstrap_iters=_RESAMPLINGS,
            task_manager=manager,
            use_cache=None if answers is None else str(answers),
        )
    assert evaluated is not None  # it is None only on other ranks
    scores = {
        name: _score(name, evaluated, model) if name in requested else SuiteScore(name, 0, "", {}, None)
        for name in tasks
    }
    if covered is None:
        return scores
    return {name: replace(score, left_out=covered[name].left_out) for name, score in scores.items()}


def _stay_offline() -> None:
    """Set the Hub's library to offline mode if its host cannot be resolved: it would retry six times, with waits.

    This has an effect only before the library is imported. Behind a proxy it sets nothing: the proxy resolves names.
    """
    if getproxies() or "HF_HUB_OFFLINE" in os.environ:
        return
    host = urlparse(os.environ.get("HF_ENDPOINT", "https://huggingface.co")).hostname
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        os.environ["HF_HUB_OFFLINE"] = "1"


def _answers(kept: Path, model_folder: Path, begin_documents: bool | None) -> Path:
    """Return where the library keeps this model's answers; the library itself does not distinguish models."""
    kept.mkdir(parents=True, exist_ok=True)
    return kept / f"lm-eval-{identity_of(model_folder, ['lm-eval', begin_documents])}"


@cache
def _manager() -> Any:
    """Return the library's index of tasks, cached because reading it takes some ten seconds."""
    from lm_eval.tasks import TaskManager

    return TaskManager()


def require_lm_eval() -> None:
    """Raise InputError with the command to install the library if it is missing."""
    try:
        import lm_eval  # noqa: F401
    except ImportError:
        raise InputError("public suites need the lm-eval library: pip install 'etude[eval]'") from None


def _load(manager: Any, names: Sequence[str], specs: Sequence[str], local: Path | None) -> dict[str, Any]:
    """Load the library's tasks with their rows."""
    tasks: dict[str, Any] = {}
    for name, spec in zip(names, specs, strict=True):
        try:
            with silent_stderr():
                (tasks[name],) = manager.load([spec])["tasks"].values()
        except Exception as error:  # the library raises a dozen kinds of error, mostly from other libraries
            reason = f"{type(error).__name__}: {shown(next(iter(str(error).splitlines()), ''))}"
            advice = (
                "put its rows in files and add --local FOLDER, or try again with access to the Hub"
                if local is None
                else f"check that the files for it in {local} have the same form as the data set on the Hub"
            )
            raise InputError(f"the rows of the task '{name}' cannot be read ({reason}): {advice}") from error
    return tasks


def _score(name: str, evaluated: Any, model: EtudeLM) -> SuiteScore:
    results = evaluated["results"][name]
    figures = {}
    for key, value in results.items():
        metric, _, rule = key.partition(",")
        if not rule or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        error = results.get(f"{metric}_stderr,{rule}")
        known = isinstance(error, int | float) and math.isfinite(error)
        figures[metric if rule == "none" else f"{metric} ({rule})"] = (
            float(value),
            float(error) if known else None,
        )
    samples = evaluated["samples"][name]
    is_choice = evaluated["configs"][name].get("output_type") == "multiple_choice"
    return SuiteScore(
        name,
        int(evaluated["n-samples"][name]["effective"]),
        str(evaluated["versions"][name]),
        figures,
        _choices(samples, model) if is_choice else None,
    )


def _mean(group: str, scores: Sequence[SuiteScore]) -> SuiteScore | None:
    """Average the tasks of a group that have items, with equal weights.

    None if there is none, or if one of them does not choose among texts.
    """
    left_out = sum(score.left_out for score in scores)
    scores = [score for score in scores if score.items]
    choices = [score.choices for score in scores if score.choices is not None]
    if not scores or len(choices) < len(scores):
        return None
    shared = [name for name in scores[0].figures if all(name in score.figures for score in scores)]
    figures = {}
    for name in shared:
        values, errors = zip(*(score.figures[name] for score in scores), strict=True)
        known = [error for error in errors if error is not None]
        figures[name] = (
            float(np.mean(values)),
            math.hypot(*known) / len(scores) if len(known) == len(scores) else None,
        )
    return SuiteScore(
        group,
        sum(score.items for score in scores),
        "",
        figures,
        Choices(
            float(np.mean([choice.chance for choice in choices])),
            mean_of_shares([choice.whole for choice in choices]),
            mean_of_shares([choice.per_token for choice in choices]),
        ),
        len(scores),
        left_out,
    )


def _choices(samples: Sequence[Any], model: EtudeLM) -> Choices | None:
    """Return None if the right choice is not one of the candidates (several right ones, contexts that vary)."""
    chances, whole, per_token = [], [], []
    for sample in samples:
        pairs, answers, right = sample["arguments"], sample["filtered_resps"], sample["target"]
        if not isinstance(right, int) or not 0 <= right < len(answers) == len(pairs):
            return None
        logprobs = np.array([answer[0] for answer in answers], np.float64)
        units = np.array([model.num_tokens(*pair) for pair in pairs])
        chances.append(1 / len(answers))
        whole.append(credit(logprobs, right))
        per_token.append(credit(logprobs / np.maximum(units, 1), right))
    if not chances:
        return None
    return Choices(float(np.mean(chances)), proportion(whole), proportion(per_token))
