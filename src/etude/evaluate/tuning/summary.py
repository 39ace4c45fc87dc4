"""The figures of one system with intervals, and the report on one step of a tuning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from etude.evaluate.records import estimate_to_json
from etude.evaluate.statistics import Estimate, proportion
from etude.evaluate.tuning.asking import Asking, Result, TextBits
from etude.evaluate.tuning.classification import Null
from etude.evaluate.tuning.held_out import Question, squeezed
from etude.evaluate.tuning.paired_tests import ratio
from etude.evaluate.tuning.prompting import is_right
from etude.evaluate.tuning.verdict import Paired, Rise, Verdict, error_rates

SCHEMA = 1
MOST_KINDS = 20
"""Most kinds of questions with a row of their own."""
Form = Literal["chat template", "ChatML", "plain text"]
"""How the base is asked: by its own template, or, without one, in the better of two forms on training questions."""


@dataclass(frozen=True)
class System:
    """A model with a number of examples before each question, and what it did.

    Attributes:
        examples: in the prompt.
        results: by question.
    """

    name: str
    examples: int
    results: tuple[Result, ...]


@dataclass(frozen=True)
class Figures:
    """The figures of one system, with 95 % intervals over groups of questions.

    Attributes:
        loss: nats per trained token of the held-out answers.
        contrast: by how many nats per token the answer to another question is less likely; None without another.
        exact: share of right answers among the short ones; None without a short one.
        ended: share of answers that ended by themselves.
        copies: share of answers that equal a training answer.
        wrong_copies: share of these that are not right: they answer another question; None without a copy.
    """

    name: str
    examples: int
    loss: Estimate
    contrast: Estimate | None
    exact: Estimate | None
    ended: Estimate | None
    copies: Estimate | None
    wrong_copies: Estimate | None

    def to_json(self) -> dict[str, Any]:
        estimates = {
            "loss": self.loss,
            "own_over_other": self.contrast,
            "exact": self.exact,
            "ended": self.ended,
            "copies": self.copies,
            "wrong_copies": self.wrong_copies,
        }
        return {
            "name": self.name,
            "examples": self.examples,
            **{key: None if value is None else estimate_to_json(value) for key, value in estimates.items()},
        }


@dataclass(frozen=True)
class TextCost:
    """Bits per byte on a reference text before and after, and the rise, paired by document."""

    name: str
    digest: str
    num_bytes: int
    base: float
    tuned: float
    rise: Rise

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "digest": self.digest,
            "bytes": self.num_bytes,
            "base": self.base,
            "tuned": self.tuned,
            "rise": estimate_to_json(self.rise.rise),
        }


@dataclass(frozen=True)
class ProbeCost:
    """The share of right answers to one probe before and after, and the change, paired by item.

    Attributes:
        asks: what is asked, in a sentence.
        chance: the share that guessing gets right.
        digest: of the items.
    """

    title: str
    asks: str
    chance: float
    num_items: int
    digest: str
    base: Estimate
    tuned: Estimate
    change: Estimate

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.title,
            "asks": self.asks,
            "chance": self.chance,
            "items": self.num_items,
            "digest": self.digest,
            "base": estimate_to_json(self.base),
            "tuned": estimate_to_json(self.tuned),
            "change": estimate_to_json(self.change),
        }


@dataclass(frozen=True)
class KindFigures:
    """The share of right answers to the short questions of one kind, with 95 % intervals over groups of questions.

    Attributes:
        asked: their number.
        prompted: of the base with its best prompt.
    """

    name: str
    asked: int
    base: Estimate
    prompted: Estimate
    tuned: Estimate

    def to_json(self) -> dict[str, Any]:
        systems = {"base": self.base, "prompted": self.prompted, "tuned": self.tuned}
        shares = {name: estimate_to_json(share) for name, share in systems.items()}
        return {"name": self.name, "asked": self.asked, **shares}


@dataclass(frozen=True, kw_only=True)
class Report:
    """What every report on a tuning begins with.

    Attributes:
        base: how the user named the base; base_hash: of its files.
        questions: the hash of the questions, or pairs; held_out: how many the run has; asked: how many were used;
            groups: how many count on their own.
        skipped: those that could not be used, by reason.
        probes: general abilities before and after; none if they were not asked.
        probes_dropped: whether they were not asked for want of time.
    """

    step: int
    base: str
    base_hash: str
    questions: str
    held_out: int
    asked: int
    groups: int
    skipped: dict[str, int]
    texts: tuple[TextCost, ...]
    probes: tuple[ProbeCost, ...] = ()
    probes_dropped: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return what every line of tuning.jsonl has."""
        return {
            "schema": SCHEMA,
            "event": "tuning",
            "step": self.step,
            "base": {"source": self.base, "hash": self.base_hash},
            "questions": {
                "hash": self.questions,
                "held_out": self.held_out,
                "asked": self.asked,
                "groups": self.groups,
                "skipped": self.skipped,
            },
            "texts": [text.to_json() for text in self.texts],
            "probes": [probe.to_json() for probe in self.probes],
            "probes_dropped": self.probes_dropped,
        }


@dataclass(frozen=True, kw_only=True)
class TuningReport(Report):
    """What a tuning on conversations gained and what it cost at one step.

    Attributes:
        short: how many answers are compared exactly.
        systems: the base without a prompt first, the tuned model last.
        best: the number of examples in the best prompt of the base.
        decoding: the dtype in which the questions were answered.
        answers: how many different answers the asked questions have.
        form: how the base was asked.
        nulls: of a classification, the share of right answers of rules without a language model, by name.
        kinds: the share of right answers by kind of question, where the data name kinds.
    """

    short: int
    systems: tuple[Figures, ...]
    best: int
    verdict: Verdict
    decoding: str
    answers: int
    form: Form = "chat template"
    nulls: tuple[tuple[str, Estimate], ...] = ()
    kinds: tuple[KindFigures, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the line of tuning.jsonl."""
        head, verdict = super().to_json(), self.verdict
        return {
            **head,
            "questions": {**head["questions"], "answers": self.answers, "short": self.short},
            "systems": [system.to_json() for system in self.systems],
            "best_examples": self.best,
            "form": self.form,
            "nulls": [{"name": name, "exact": estimate_to_json(share)} for name, share in self.nulls],
            "kinds": [kind.to_json() for kind in self.kinds],
            "verdict": {
                "claims": verdict.claims,
                "measure": verdict.measure,
                "p_values": verdict.p_values,
                "sentence": verdict.sentence,
                "error_rates": error_rates(self.answers),
            },
            "decoding": self.decoding,
        }


def paired_of(results: Sequence[Result], askings: Sequence[Asking]) -> Paired:
    """Return the results of a system in the form that the verdict reads."""
    return Paired(
        tuple(result.nats for result in results),
        tuple(result.tokens for result in results),
        tuple(result.other for result in results),
        tuple(
            None if result.answer is None else is_right(result.answer, asking.question.answer)
            for result, asking in zip(results, askings, strict=True)
        ),
        tuple(result.ended for result in results),
    )


def figures_of(
    system: System, askings: Sequence[Asking], groups: Sequence[str], training: frozenset[str]
) -> Figures:
    """Return the figures of a system, with ``training`` answers to find copies of."""
    paired = paired_of(system.results, askings)
    contrast = [
        (value, group) for value, group in zip(paired.contrast, groups, strict=True) if value is not None
    ]
    copies = [
        (squeezed(result.answer) in training and bool(result.answer.strip()), right, group)
        for result, right, group in zip(system.results, paired.exact, groups, strict=True)
        if result.answer is not None
    ]
    wrong = [(not right, group) for copy, right, group in copies if copy]
    return Figures(
        system.name,
        system.examples,
        ratio(paired.nats, paired.tokens, groups),
        ratio([value for value, _ in contrast], [1.0] * len(contrast), [group for _, group in contrast])
        if contrast
        else None,
        share_of(paired.exact, groups),
        share_of(paired.ended, groups),
        share_of([copy for copy, _, _ in copies], [group for _, _, group in copies]),
        share_of([value for value, _ in wrong], [group for _, group in wrong]),
    )


def shares_of_nulls(nulls: Sequence[Null], groups: Sequence[str]) -> tuple[tuple[str, Estimate], ...]:
    """Return the share of right answers of each rule."""
    shares = ((null.name, share_of(null.exact, groups)) for null in nulls)
    return tuple((name, share) for name, share in shares if share is not None)


def figures_by_kind(
    questions: Sequence[Question], groups: Sequence[str], base: Paired, best: Paired, tuned: Paired
) -> tuple[KindFigures, ...]:
    """Return the figures of each kind of question, by name; none where the data name fewer than two, or very many."""
    kinds = sorted({question.kind for question in questions} - {""})
    if not 1 < len(kinds) <= MOST_KINDS:
        return ()
    figures = []
    for kind in kinds:
        own = [at for at, question in enumerate(questions) if question.kind == kind]
        of_kind = [groups[at] for at in own]
        of_base, of_best, of_tuned = (
            share_of([system.exact[at] for at in own], of_kind) for system in (base, best, tuned)
        )
        if of_base and of_best and of_tuned:  # some of its answers are short
            asked = sum(tuned.exact[at] is not None for at in own)
            figures.append(KindFigures(kind, asked, of_base, of_best, of_tuned))
    return tuple(figures)


def share_of(values: Sequence[bool | None], groups: Sequence[str]) -> Estimate | None:
    """Return the share of the values that are true; None without any."""
    known = [(float(value), group) for value, group in zip(values, groups, strict=True) if value is not None]
    return proportion([value for value, _ in known], [group for _, group in known]) if known else None


def cost_of(name: str, digest: str, base: TextBits, tuned: TextBits) -> TextCost:
    """Return what a tuning cost on a reference text."""
    documents = [f"document {number}" for number in range(len(base.sizes))]
    changes = [after - before for before, after in zip(base.bits, tuned.bits, strict=True)]
    size = sum(base.sizes)
    rise = ratio(changes, base.sizes, documents)
    return TextCost(name, digest, size, sum(base.bits) / size, sum(tuned.bits) / size, Rise(name, rise))


def best_prompt(prompts: Sequence[Paired]) -> int:
    """Return the index of the base's best prompt: most right answers, then the lowest loss.

    If no answer is short: the highest contrast of its own answer to another's.
    """

    def merit(at: int) -> tuple[float, float]:
        system = prompts[at]
        right = [float(value) for value in system.exact if value is not None]
        contrast = [value for value in system.contrast if value is not None]
        first = sum(right) if right else sum(contrast) / len(contrast) if contrast else 0.0
        return first, -sum(system.nats)

    return max(range(len(prompts)), key=merit)
