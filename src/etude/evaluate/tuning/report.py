"""Make the report on a tuned run: ask the base with and without prompts, ask the tuned model, and compare."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from etude.data.corpus.corpus import EXAMPLES, Corpus
from etude.data.files import key_of
from etude.data.reference import ReferenceText, built_in_texts
from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.errors import InputError
from etude.evaluate.examined_run import ExaminedRun
from etude.evaluate.tuning.asking import (
    BLOCK,
    Asking,
    Respondent,
    Result,
    TextBits,
    askings_of,
    got_chatml,
    numbers_of_examples,
)
from etude.evaluate.tuning.classification import Labels
from etude.evaluate.tuning.held_out import held_out_questions, some_questions, training_questions
from etude.evaluate.tuning.prompting import TrainingAnswers, training_answers
from etude.evaluate.tuning.summary import (
    Form,
    System,
    TuningReport,
    best_prompt,
    cost_of,
    figures_of,
    paired_of,
    shares_of_nulls,
)
from etude.evaluate.tuning.verdict import groups_of, verdict_of
from etude.files import write_atomic, write_json
from etude.model.folder import CARD, load_config
from etude.plan.model_card import with_tuning
from etude.pretrained.base import open_base
from etude.pretrained.facts import recorded_facts
from etude.run import RunFolder
from etude.run.checkpoints import checkpoint_of_step, list_checkpoints, step_of
from etude.setting_types import Auto
from etude.untrusted import open_plain

MOST_QUESTIONS = 100
_CARD_BYTES = 1 << 20
T = TypeVar("T")
Progress = Callable[[int, int], None]
"""Callback (questions and texts answered, in all)."""


def tuning_report(
    run: Path,
    *,
    step: int | None = None,
    most_questions: int = MOST_QUESTIONS,
    seconds: float | None = None,
    progress: Progress | None = None,
    threads: int | Auto = "auto",
) -> TuningReport:
    """Report what the tuning of ``run`` gained and cost at ``step`` (the newest checkpoint), and record it.

    The report is added to tuning.jsonl of the run; the answers are in derived/tuning.

    Args:
        most_questions: held-out questions to ask, a fixed random choice.
        seconds: ask fewer questions if the time would not be enough; one block of them is always asked.

    Raises:
        InputError: the run was not tuned on conversations, has no such checkpoint, or holds out no question.
    """
    examined = TunedRun.of(run, most_questions, threads)
    checkpoints = {step_of(folder): folder for folder in list_checkpoints(run / "checkpoints")}
    chosen = checkpoint_of_step(run, str(max(checkpoints, default=0) if step is None else step), checkpoints)
    until = None if seconds is None else time.monotonic() + seconds
    return examined.report(chosen, until, progress)


@dataclass(frozen=True)
class Base:
    """The model that a run began with: its model folder, how the user named it, and the hash of its files."""

    folder: Path
    source: str
    hash: str


@dataclass
class TunedRun:
    """A run tuned on conversations, with the questions that it can be asked.

    Attributes:
        folder: of the run.
        respondent: the base, which answers.
        held_out: how many questions the run has.
        skipped: why some of the chosen ones cannot be asked.
        trial: training questions on which the form is chosen in which the base is asked; empty for a base that has a
            chat template.
    """

    folder: Path
    base: Base
    respondent: Respondent
    askings: list[Asking]
    training: TrainingAnswers
    held_out: int
    skipped: Counter[str]
    threads: int | Auto
    labels: Labels = field(default_factory=Labels)
    trial: tuple[Asking, ...] = ()
    texts: tuple[ReferenceText, ...] = field(default_factory=built_in_texts)

    @classmethod
    def of(cls, path: Path, most_questions: int = MOST_QUESTIONS, threads: int | Auto = "auto") -> TunedRun:
        """Open a run.

        Raises:
            InputError: it was not tuned on conversations, or holds out none that can be asked.
        """
        examined = ExaminedRun.of(path)
        if examined is None:
            raise InputError(
                f"{path} is a model without a run, and the suite tuning asks the held-out questions of a run: name a "
                "run that was tuned on conversations"
            )
        corpus = examined.data.corpus
        manifest = RunFolder(examined.folder).read_manifest(sealed=False)
        facts = recorded_facts(manifest)
        if not corpus.facts.get(EXAMPLES):
            raise InputError(
                f"{examined.folder} was trained on plain text, and the suite tuning asks held-out questions: name a "
                "run that was tuned on conversations"
            )
        if facts is None:
            raise InputError(
                f"{examined.folder} began with random weights, so there is no base to compare it with: name a run that "
                "was tuned with --from"
            )
        return cls.opened(
            examined.folder,
            corpus,
            examined.data.tokenizer,
            Base(_base_of(examined, facts.hash), facts.source, facts.hash),
            most_questions,
            threads,
        )

    @classmethod
    def opened(
        cls,
        folder: Path,
        corpus: Corpus,
        tokenizer: EtudeTokenizer,
        base: Base,
        most_questions: int = MOST_QUESTIONS,
        threads: int | Auto = "auto",
    ) -> TunedRun:
        """Choose the questions of the run in ``folder`` from its ``corpus`` of examples.

        Raises:
            InputError: there is none that can be asked.
        """
        questions, held_out = held_out_questions(corpus.documents("validation"), most_questions)
        labels = Labels()
        training = training_answers(questions, labels.counted(training_questions(corpus)))
        room = load_config(base.folder).max_position_embeddings
        askings, skipped = askings_of(questions, training, tokenizer, room)
        if not askings:
            reason = next(iter(skipped), "none of its held-out rows has a question with an answer")
            raise InputError(f"{folder} has no held-out question to ask: {reason}")
        respondent = Respondent(base.folder, folder / "derived" / "tuning" / "parts", threads)
        trial = _trial(corpus, tokenizer, room)
        return cls(folder, base, respondent, askings, training, held_out, skipped, threads, labels, trial)

    def report(
        self, checkpoint: Path, until: float | None = None, progress: Progress | None = None
    ) -> TuningReport:
        """Report on a checkpoint, and record it; ask fewer questions if it would take until after ``until``.

        Raises:
            InputError: the checkpoint is the base itself.
        """
        step = step_of(checkpoint)
        if checkpoint.resolve() == self.base.folder.resolve():
            raise InputError(
                f"step {step} is the base itself, which learned nothing yet: choose a later step"
            )
        tuned = Respondent(checkpoint, self.respondent.within, self.threads)
        work = _Work(self, tuned, until, progress)
        answers, texts = work.done()
        report = _report(self, step, answers, texts, tuned, work.form)
        run = RunFolder(self.folder)
        write_json(
            run.path / "derived" / "tuning" / f"{checkpoint.name}.json",
            {**report.to_json(), "answers": _answers_to_json(self, answers)},
        )
        run.tuning.append(report.to_json())
        _write_card(checkpoint, report)
        return report


@dataclass
class _Work:
    """The work for one report: base first, block by block, then as many blocks of the tuned model."""

    run: TunedRun
    tuned: Respondent
    until: float | None
    progress: Progress | None
    finished: int = 0
    form: Form = "chat template"

    def done(self) -> tuple[dict[int | None, list[Result]], list[tuple[TextBits, TextBits]]]:
        """Return the results by number of examples (None: the tuned model), and the bits of each reference text."""
        askings = self.run.askings
        blocks = [askings[first : first + BLOCK] for first in range(0, len(askings), BLOCK)]
        numbers = numbers_of_examples(self.run.training)
        trials = 2 if self.run.trial else 0
        self.total = len(blocks) * (len(numbers) + 1) + 2 * len(self.run.texts) + trials
        base, begin = self.run.respondent, time.monotonic()
        before = [self._step(partial(base.read, text)) for text in self.run.texts]
        to_read = time.monotonic() - begin
        answers: dict[int | None, list[Result]] = {number: [] for number in (*numbers, None)}
        num_blocks, bare, plain = 0, 0.0, self._choose_form() == "plain text"
        for block in blocks:
            started = time.monotonic()
            for number in numbers:
                answers[number] += self._step(partial(base.ask, block, number, plain))
                bare += time.monotonic() - started if number == 0 else 0.0
            num_blocks += 1
            spent = time.monotonic() - started
            tuned = to_read + bare * (num_blocks + 1) / num_blocks
            if self.until is not None and time.monotonic() + spent + tuned > self.until:
                break
        base.release()  # one model in memory at a time
        for block in blocks[:num_blocks]:
            answers[None] += self._step(partial(self.tuned.ask, block, 0))
        after = [self._step(partial(self.tuned.read, text)) for text in self.run.texts]
        return answers, list(zip(before, after, strict=True))

    def _choose_form(self) -> Form:
        """Ask a base without a chat template training questions in both forms, and keep the better one."""
        trial = self.run.trial
        if trial:
            examples = max(len(asking.shots) for asking in trial)
            asked = [
                paired_of(self._step(partial(self.run.respondent.ask, trial, examples, plain)), trial)
                for plain in (False, True)
            ]
            self.form = "plain text" if best_prompt(asked) else "ChatML"
        return self.form

    def _step(self, work: Callable[[], T]) -> T:
        result = work()
        self.finished += 1
        if self.progress is not None:
            self.progress(self.finished, self.total)
        return result


def _report(
    run: TunedRun,
    step: int,
    answers: dict[int | None, list[Result]],
    texts: Sequence[tuple[TextBits, TextBits]],
    tuned: Respondent,
    form: Form,
) -> TuningReport:
    askings = run.askings[: len(answers[None])]
    questions = [asking.question for asking in askings]
    references = [question.answer for question in questions]
    groups = groups_of(references, [question.asked for question in questions])
    prompts = [
        System(f"base, {number} examples" if number else "base", number, tuple(results))
        for number, results in answers.items()
        if number is not None
    ]
    after = System(f"tuned, step {step:,}", 0, tuple(answers[None]))
    paired = [paired_of(system.results, askings) for system in prompts]
    best = best_prompt(paired)
    named = zip(run.texts, texts, strict=True)
    costs = tuple(cost_of(text.name, text.digest, *bits) for text, bits in named)
    after_paired = paired_of(after.results, askings)
    nulls = run.labels.nulls(questions)
    rises = [cost.rise for cost in costs]
    verdict = verdict_of(groups, paired[0], paired[best], after_paired, rises, nulls)
    return TuningReport(
        step,
        run.base.source,
        run.base.hash,
        key_of([question.key for question in questions]),
        run.held_out,
        len(askings),
        len(set(groups)),
        sum(result.answer is not None for result in after.results),
        dict(run.skipped),
        tuple(figures_of(system, askings, groups, run.training.answers) for system in (*prompts, after)),
        prompts[best].examples,
        costs,
        verdict,
        ", ".join(sorted(tuned.dtypes | run.respondent.dtypes)),
        len(set(references)),
        form,
        shares_of_nulls(nulls, groups),
    )


def _trial(corpus: Corpus, tokenizer: EtudeTokenizer, room: int) -> tuple[Asking, ...]:
    """Return training questions to choose a form with, for a base that got ChatML; none for another base."""
    if not got_chatml(tokenizer):
        return ()
    chosen = some_questions(training_questions(corpus), BLOCK)
    asked = {question.asked for question in chosen}
    others = (question for question in training_questions(corpus) if question.asked not in asked)
    return tuple(askings_of(chosen, training_answers(chosen, others), tokenizer, room)[0])


def _write_card(checkpoint: Path, report: TuningReport) -> None:
    """Add the report to the model card of the checkpoint, which has no checksum; without a card, to nothing."""
    file = checkpoint / CARD
    try:
        with open_plain(file) as opened:
            card = opened.read(_CARD_BYTES).decode("utf-8")
    except (OSError, UnicodeDecodeError, InputError):
        return
    if len(card.encode()) < _CARD_BYTES:
        write_atomic(file, with_tuning(card, report.to_json()))


def _answers_to_json(run: TunedRun, answers: dict[int | None, list[Result]]) -> list[dict[str, Any]]:
    """Return every question with its reference and what each system did."""
    names = {number: "tuned" if number is None else f"base {number}" for number in answers}
    return [
        {
            "question": asking.question.asked,
            "reference": asking.question.answer,
            "other_answer": asking.other,
            "systems": {names[number]: asdict(results[at]) for number, results in answers.items()},
        }
        for at, asking in enumerate(run.askings[: len(answers[None])])
    ]


def _base_of(examined: ExaminedRun, expected: str) -> Path:
    """Return the model folder of the base: the first checkpoint, or what the settings name for a fork.

    Raises:
        InputError: that has not the ``expected`` hash any more.
    """
    folders = list_checkpoints(examined.folder / "checkpoints")
    if folders and step_of(folders[0]) == 0:
        return folders[0]
    named = open_base(examined.settings.model.base)
    if named.hash != expected:
        raise InputError(
            f"{named.source} is not the model that {examined.folder} began with any more: put that model back, or ask "
            "the run that this one was forked from"
        )
    return named.folder
