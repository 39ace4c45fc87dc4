"""``etude eval MODEL MODEL...``: put the same items to several models, such as a published one beside one's own.

One model with a named text is the same with a single model. Nothing is recorded in the runs: the items are not those of
their own text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from etude.config import NO_BASE
from etude.data.files import key_of
from etude.data.tokens.published import model_tokenizer
from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.device import git_commit
from etude.errors import InputError
from etude.evaluate.answerers import CountingAnswerer, ItemScore, Report
from etude.evaluate.examined_run import ExaminedRun
from etude.evaluate.items import Item
from etude.evaluate.named_text import NamedText, named_text
from etude.evaluate.null_comparison import NullComparison
from etude.evaluate.output import UNKNOWN
from etude.evaluate.questions import (
    HELD_OUT_BYTES,
    ProbeSource,
    Questions,
    counting_for,
    item_chars,
    questions_from,
    suites_for,
    texts_of,
    without_claims,
)
from etude.evaluate.random_null import random_null, usual_items
from etude.evaluate.resumable_evaluation import PartsAnswerer
from etude.evaluate.resumable_parts import ALONE, Workers
from etude.evaluate.together_output import ModelResults, Together, print_together
from etude.model.config import ModelConfig
from etude.model.folder import load_config
from etude.places import cache_folder
from etude.pretrained.resolve_source import model_folder
from etude.run.checkpoints import MARKER, step_of
from etude.show.progress import ProgressListener, data_progress

SAMPLE_CHARS = 20_000
"""Characters of the text from which the length of a token is estimated."""


@dataclass(frozen=True)
class TogetherRequest:
    """The options of an evaluation of several models, or of probes from a named text.

    suites: empty for those that fit; num_items: most items of a probe, None for the usual number; text: the sources of
    the named text, empty for the text of the first run.
    """

    paths: Sequence[Path]
    suites: tuple[str, ...] = ()
    num_items: int | None = None
    text: tuple[str, ...] = ()
    workers: Workers = ALONE
    as_json: bool = False


@dataclass(frozen=True)
class ExaminedModel:
    """A model that answers. name: how it is called in the tables; run: None for one that Etude did not train."""

    name: str
    folder: Path
    run: ExaminedRun | None
    config: ModelConfig
    tokenizer: EtudeTokenizer

    @classmethod
    def of(cls, path: Path, name: str) -> ExaminedModel:
        """Open the configuration and tokenizer of a model, and its run if it has one.

        Raises:
            InputError: there is no such model, or the text of its run is missing.
        """
        folder = model_folder(path)
        return cls(name, folder, ExaminedRun.of(folder), load_config(folder), model_tokenizer(folder))

    @property
    def note(self) -> str:
        """What is not known of its reading; "" for a model that was trained from nothing on a known text."""
        if self.run is None:
            return UNKNOWN
        if self.run.settings.model.base != NO_BASE:
            return f"of the model that it began with, {UNKNOWN}"
        return ""

    @property
    def step(self) -> int | None:
        return step_of(self.folder) if (self.folder / MARKER).is_file() else None

    def chars_of(self, sample: str) -> int:
        """Return the most characters of an item in its context, at the length of its tokens in ``sample``."""
        tokens = max(1, len(self.tokenizer.encode(sample)))
        return item_chars(self.config.max_position_embeddings, len(sample) / tokens)


@dataclass
class Remembered:
    """An answerer whose answers to the same items are kept: every model is compared with the same counts."""

    answerer: CountingAnswerer
    _kept: tuple[Sequence[Item], list[ItemScore]] | None = None

    def answer(self, items: Sequence[Item], report: Report | None = None) -> list[ItemScore]:
        if self._kept is None or self._kept[0] != items:
            self._kept = items, self.answerer.answer(items, report)
        return self._kept[1]


def evaluate_together(request: TogetherRequest, console: Console) -> None:
    """Evaluate the models on the same items, and print their scores with the differences between them.

    Raises:
        InputError: no such model or text, a suite that needs a text without one, or no probe is left.
    """
    models = open_models(request.paths)
    runs = [model.run for model in models if model.run is not None]
    suites = request.suites or _usual_suites(request, runs)
    most = request.num_items or min(usual_items(model.config) for model in models)
    with (
        named_text(request.text) if request.text else nullcontext() as text,
        data_progress(console) as progress,
    ):
        source, counting = probe_source(models, text)
        if text is None and "text" in suites and runs:
            source, counting = _own_text(models, runs[0])
        questions = questions_from(source, suites, most)
        questions.require_some()
        null = None if counting is None else Remembered(counting())
        results = []
        for model in models:
            with scratch_folder(model.folder, questions.hash) as scratch:
                results.append(answers_of(model, questions, null, scratch, request.workers, progress))
        about = None if text is None else text.to_json()
        lines = [text.line] if text is not None else []
        if text is None and "text" in suites and runs:
            lines = [
                f"text: that of {runs[0].folder}, which read the rest of it; n-gram: counted from that rest"
            ]
    print_together(Together(results, questions, about, lines, git_commit()), request.as_json, console)


def open_models(paths: Sequence[Path]) -> list[ExaminedModel]:
    """Open several models, each with a name of its own: the last part of its path if no other has it."""
    typed = [str(path) for path in paths]
    if repeated := [name for at, name in enumerate(typed) if name in typed[:at]]:
        raise InputError(f"{repeated[0]} is named twice: name each model once")
    short = [Path(name).name or name for name in typed]
    names = short if len(set(short)) == len(short) else typed
    return [ExaminedModel.of(path, name) for path, name in zip(paths, names, strict=True)]


def _usual_suites(request: TogetherRequest, runs: Sequence[ExaminedRun]) -> tuple[str, ...]:
    if request.text:
        return ("text",)
    own = suites_for(runs[0].settings) if len(runs) == 1 else ()
    return tuple(suite for suite in own if suite != "modular") or ("world",)  # modular is one run's alone


def probe_source(
    models: Sequence[ExaminedModel], text: NamedText | None
) -> tuple[ProbeSource, Callable[[], CountingAnswerer] | None]:
    """Return where the probes come from, and the n-gram counts beside them (None without a text).

    Items stand neither in the counted part of the text nor in what any run among the models was trained on.
    """
    runs = [model.run for model in models if model.run is not None]

    def train() -> Iterator[str]:
        for document in text.counted() if text is not None else ():
            yield document.decode("utf-8", "ignore")
        for run in runs:
            yield from texts_of(run.data, "train")

    if text is None:
        return ProbeSource(train if runs else None, None, 0), None
    held_out = text.probed()
    sample = "\n".join(held_out)[:SAMPLE_CHARS]
    chars = min(model.chars_of(sample) for model in models)
    return ProbeSource(train, lambda max_bytes: iter(held_out), chars), lambda: text.counting


def _own_text(
    models: Sequence[ExaminedModel], run: ExaminedRun
) -> tuple[ProbeSource, Callable[[], CountingAnswerer]]:
    """Return the text of a run as the source: it has read the other part of it, which the others may not have."""
    source, _ = probe_source(models, None)
    held_out = list(texts_of(run.data, "validation", HELD_OUT_BYTES))
    sample = "\n".join(held_out)[:SAMPLE_CHARS]
    chars = min(model.chars_of(sample) for model in models)
    source = ProbeSource(source.train, lambda max_bytes: iter(held_out), chars)
    return source, lambda: counting_for(run.data, run.ladder)


def answers_of(
    model: ExaminedModel,
    questions: Questions,
    counting: Remembered | None,
    scratch: Path,
    workers: Workers,
    progress: ProgressListener,
) -> ModelResults:
    """Put the questions to a model and to networks of its shape with random weights."""
    random = random_null(model.config, model.tokenizer, workers.threads)
    put = without_claims(questions) if model.note else questions
    comparison = NullComparison(put.probes, counting, random.networks, random.num_items)
    answerer = PartsAnswerer(model.folder, scratch, workers)
    results = comparison.results(answerer, report_to(progress, f"asking {model.name}"))
    notes = tuple(note for note in (model.note, random.reason) if note)
    seed = None if model.run is None else model.run.settings.run.seed
    return ModelResults(model.name, model.folder, seed, model.step, tuple(results), notes)


def report_to(progress: ProgressListener, stage: str) -> Report:
    """Return a callback that shows progress under the name ``stage``."""
    return lambda done, of: progress(stage, done, of)


@contextmanager
def scratch_folder(model: Path, of: str) -> Iterator[Path]:
    """Keep answers in the cache until all are given, so that an interrupted evaluation resumes from them."""
    import shutil

    folder = cache_folder() / "evaluation" / key_of([str(model.resolve()), of])
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
