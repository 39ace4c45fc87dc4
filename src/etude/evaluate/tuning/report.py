"""Make the report on a tuned run: ask the base with and without prompts, ask the tuned model, and compare."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from etude.config import Resolved
from etude.data.conversations.shards import has_pairs
from etude.data.corpus.corpus import Corpus
from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.errors import InputError
from etude.evaluate.tuning.asking import (
    BLOCK,
    Asking,
    Respondent,
    Result,
    askings_of,
    got_chatml,
    numbers_of_examples,
)
from etude.evaluate.tuning.classification import Labels
from etude.evaluate.tuning.costs import Compared, Costs, Readings
from etude.evaluate.tuning.examined import (
    MOST_QUESTIONS,
    Base,
    Counted,
    ExaminedTuning,
    Progress,
    record_report,
)
from etude.evaluate.tuning.held_out import held_out_questions, some_questions, training_questions
from etude.evaluate.tuning.kinds import kind_of
from etude.evaluate.tuning.pair_report import PairsReport, TunedPairs
from etude.evaluate.tuning.prompting import TrainingAnswers, training_answers
from etude.evaluate.tuning.reward_null import nulls_of_rewards
from etude.evaluate.tuning.summary import (
    Form,
    System,
    TuningReport,
    best_prompt,
    figures_by_kind,
    figures_of,
    paired_of,
    shares_of_nulls,
)
from etude.evaluate.tuning.tuned import Tuned
from etude.evaluate.tuning.verdict import groups_of, verdict_of
from etude.model.folder import load_config
from etude.run.checkpoints import checkpoint_of_step, list_checkpoints, step_of
from etude.setting_types import Auto


def tuning_report(
    run: Path,
    *,
    step: int | None = None,
    most_questions: int = MOST_QUESTIONS,
    seconds: float | None = None,
    progress: Progress | None = None,
    threads: int | Auto = "auto",
) -> TuningReport | PairsReport:
    """Report what the tuning of ``run`` gained and cost at ``step`` (the newest checkpoint), and record it.

    The report is added to tuning.jsonl of the run; the answers are in derived/tuning.

    Args:
        most_questions: held-out questions to ask, or pairs to score, a fixed random choice.
        seconds: ask fewer questions if the time would not be enough; one block of them is always asked.

    Raises:
        InputError: the run was not tuned on conversations or pairs, has no such checkpoint, or holds out none.
    """
    examined = tuned_run(run, most_questions, threads)
    checkpoints = {step_of(folder): folder for folder in list_checkpoints(run / "checkpoints")}
    chosen = checkpoint_of_step(run, str(max(checkpoints, default=0) if step is None else step), checkpoints)
    until = None if seconds is None else time.monotonic() + seconds
    return examined.report(chosen, until, progress, probes=True)


def tuned_run(
    path: Path, most_questions: int = MOST_QUESTIONS, threads: int | Auto = "auto"
) -> TunedRun | TunedPairs:
    """Open a run with what it can be asked.

    Raises:
        InputError: it was not tuned on conversations or pairs, or holds out none that can be used.
    """
    tuning = ExaminedTuning.of(path)
    if has_pairs(tuning.corpus.facts.get("kinds", {})):
        return TunedPairs.of(tuning, most_questions, threads)
    run = TunedRun.opened(
        tuning.folder, tuning.corpus, tuning.tokenizer, tuning.base, most_questions, threads
    )
    return replace(run, settings=tuning.settings)


@dataclass
class TunedRun(Tuned):
    """A run tuned on conversations, with the questions that it can be asked.

    Attributes:
        trial: training questions on which the form is chosen in which the base is asked; empty for a base that has a
            chat template.
        settings: with which it was trained; None: not known, and it has no null.
    """

    askings: list[Asking]
    training: TrainingAnswers
    labels: Labels = field(default_factory=Labels)
    trial: tuple[Asking, ...] = ()
    settings: Resolved | None = None

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
        questions, held_out = held_out_questions(
            corpus.documents("validation"), most_questions, partial(kind_of, corpus)
        )
        labels = Labels()
        training = training_answers(questions, labels.counted(training_questions(corpus)))
        room = load_config(base.folder).max_position_embeddings
        askings, skipped = askings_of(questions, training, tokenizer, room)
        if not askings:
            reason = next(iter(skipped), "none of its held-out rows has a question with an answer")
            raise InputError(f"{folder} has no held-out question to ask: {reason}")
        trial = _trial(corpus, tokenizer, room)
        return cls(
            folder, base, corpus, held_out, skipped, threads, askings, training, labels=labels, trial=trial
        )

    def report(
        self,
        checkpoint: Path,
        until: float | None = None,
        progress: Progress | None = None,
        *,
        probes: bool = False,
    ) -> TuningReport:
        """Report on a checkpoint, and record it; ask fewer questions if it would take until after ``until``.

        ``probes``: ask the probes of general abilities as well.

        Raises:
            InputError: the checkpoint is the base itself.
        """
        step, tuned, costs = self.beside(checkpoint, probes)
        work = _Work(self, tuned, until, progress, costs)
        answers, before, after = work.done()
        report = _report(self, step, answers, costs.compare(before, after), tuned, work.form)
        record_report(self.folder, checkpoint, report.to_json(), _answers_to_json(self, answers))
        return report


@dataclass
class _Work:
    """The work for one report: base first, block by block, then as many blocks of the tuned model."""

    run: TunedRun
    tuned: Respondent
    until: float | None
    progress: Progress | None
    costs: Costs
    form: Form = "chat template"

    def done(self) -> tuple[dict[int | None, list[Result]], Readings, Readings]:
        """Return the results by number of examples (None: the tuned model), and what both models read elsewhere."""
        askings = self.run.askings
        blocks = [askings[first : first + BLOCK] for first in range(0, len(askings), BLOCK)]
        numbers = numbers_of_examples(self.run.training)
        trials = 2 if self.run.trial else 0
        count = Counted(self.progress, len(blocks) * (len(numbers) + 1) + 2 * len(self.costs) + trials)
        base, begin = self.run.respondent, time.monotonic()
        before = self.costs.read(base, count, self.until)
        to_read = time.monotonic() - begin
        answers: dict[int | None, list[Result]] = {number: [] for number in (*numbers, None)}
        num_blocks, bare, plain = 0, 0.0, self._choose_form(count) == "plain text"
        for block in blocks:
            started = time.monotonic()
            for number in numbers:
                answers[number] += count(base.ask(block, number, plain))
                bare += time.monotonic() - started if number == 0 else 0.0
            num_blocks += 1
            spent = time.monotonic() - started
            tuned = to_read + bare * (num_blocks + 1) / num_blocks
            if self.until is not None and time.monotonic() + spent + tuned > self.until:
                break
        base.release()  # one model in memory at a time
        for block in blocks[:num_blocks]:
            answers[None] += count(self.tuned.ask(block, 0))
        return answers, before, self.costs.read(self.tuned, count)

    def _choose_form(self, count: Counted) -> Form:
        """Ask a base without a chat template training questions in both forms, and keep the better one."""
        trial = self.run.trial
        if trial:
            examples = max(len(asking.shots) for asking in trial)
            asked = [
                paired_of(count(self.run.respondent.ask(trial, examples, plain)), trial)
                for plain in (False, True)
            ]
            self.form = "plain text" if best_prompt(asked) else "ChatML"
        return self.form


def _report(
    run: TunedRun,
    step: int,
    answers: dict[int | None, list[Result]],
    compared: Compared,
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
    after_paired = paired_of(after.results, askings)
    nulls = [*run.labels.nulls(questions), *nulls_of_rewards(run.folder, run.settings, step, questions)]
    rises = [text.rise for text in compared.texts]
    verdict = verdict_of(groups, paired[0], paired[best], after_paired, rises, nulls)
    return TuningReport(
        **run.head(step, [question.key for question in questions], groups, compared),
        short=sum(result.answer is not None for result in after.results),
        systems=tuple(
            figures_of(system, askings, groups, run.training.answers) for system in (*prompts, after)
        ),
        best=prompts[best].examples,
        verdict=verdict,
        decoding=", ".join(sorted(tuned.dtypes | run.respondent.dtypes)),
        answers=len(set(references)),
        form=form,
        nulls=shares_of_nulls(nulls, groups),
        kinds=figures_by_kind(questions, groups, paired[0], paired[best], after_paired),
    )


def _trial(corpus: Corpus, tokenizer: EtudeTokenizer, room: int) -> tuple[Asking, ...]:
    """Return training questions to choose a form with, for a base that got ChatML; none for another base."""
    if not got_chatml(tokenizer):
        return ()
    chosen = some_questions(training_questions(corpus), BLOCK)
    asked = {question.asked for question in chosen}
    others = (question for question in training_questions(corpus) if question.asked not in asked)
    return tuple(askings_of(chosen, training_answers(chosen, others), tokenizer, room)[0])


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
