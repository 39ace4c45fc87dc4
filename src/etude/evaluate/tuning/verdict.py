"""The verdict on a tuning: whether it helps more than a prompt does, what it learned, and what it forgot.

Each claim is a one-sided test at :data:`LEVEL`. What counts as help is fixed before anything is measured: right
answers where they are short enough to be compared exactly, else what the question says about its own answer (how much
less likely the answer to another question is). Loss alone is no help, because it falls when only the form is learned:
a tuning on answers that were shuffled among the questions lowers it too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from etude.evaluate.statistics import Estimate
from etude.evaluate.tuning.classification import Null
from etude.evaluate.tuning.held_out import comparable
from etude.evaluate.tuning.paired_tests import (
    FEWEST_GROUPS,
    LEVEL,
    Floats,
    permutation_test,
    sign_test,
    sums_of_groups,
)

Help = Literal["better than prompting", "worse than prompting", "no better than prompting", "cannot tell"]
FORM = "learned the form, not the facts"
FORGOT = "forgot"
NOTHING = "learned nothing that these questions measure"
FEWEST_ANSWERS = 8
"""Fewest different answers for questions with the same answer to count as one. Fewer are taken for labels."""


@dataclass(frozen=True)
class Paired:
    """The results of one system, question by question, in the order of the questions.

    Attributes:
        nats: of the held-out answer, summed over its trained tokens.
        tokens: their number.
        other: nats per token of the answer to another question; None where there is none.
        exact: whether the generated answer is right; None for an answer that is too long to be compared.
        ended: whether it ended by itself; None if nothing was generated.
    """

    nats: tuple[float, ...]
    tokens: tuple[int, ...]
    other: tuple[float | None, ...]
    exact: tuple[bool | None, ...]
    ended: tuple[bool | None, ...]

    @property
    def contrast(self) -> list[float | None]:
        """By how many nats per token the answer to another question is less likely, for each question."""
        rows = zip(self.nats, self.tokens, self.other, strict=True)
        return [None if other is None else other - nats / tokens for nats, tokens, other in rows]


@dataclass(frozen=True)
class Rise:
    """The rise of bits per byte on a reference text, paired by document."""

    name: str
    rise: Estimate

    @property
    def is_forgetting(self) -> bool:
        return self.rise.interval.low > 0


@dataclass(frozen=True)
class Verdict:
    """What a tuning gained and cost.

    Attributes:
        help: against the base with its best prompt.
        measure: what help is measured by: "exact answers" or "own answer over another's".
        learned_form: the form was learned, and the facts were not.
        learned_facts: more than the base knows without a prompt.
        forgot: the reference texts that it predicts worse.
        p_values: by claim, one-sided.
        sentence: all of it in words.
        beaten: of a classification, the claim that a rule without a language model answers more questions right.
    """

    help: Help
    measure: str
    learned_form: bool
    learned_facts: bool
    forgot: tuple[Rise, ...]
    p_values: dict[str, float]
    sentence: str
    beaten: str = ""

    @property
    def claims(self) -> list[str]:
        """The claims in a few words each."""
        claims: list[str] = [self.help, *([self.beaten] if self.beaten else [])]
        if self.learned_form:
            claims.append(FORM)
        return [*claims, FORGOT] if self.forgot else claims


def groups_of(answers: Sequence[str], questions: Sequence[str]) -> list[str]:
    """Return the group of each question: those with the same answer ask the same thing, and count as one.

    Where there are few different answers, such as labels, each different question counts. Of a few facts in several
    wordings the stated error rates do not hold then, and the report says so (:func:`error_rates`).
    """
    if len(set(answers)) >= FEWEST_ANSWERS:
        return list(answers)
    return [f"question {comparable(question)}" for question in questions]


def verdict_of(
    groups: Sequence[str],
    base: Paired,
    best: Paired,
    tuned: Paired,
    rises: Sequence[Rise],
    nulls: Sequence[Null] = (),
) -> Verdict:
    """Return the verdict on ``tuned``, beside the ``base`` without a prompt and with its ``best`` prompt.

    ``nulls``: what a classification is compared with; the one with most right answers counts.
    """
    answered = [at for at, value in enumerate(tuned.exact) if value is not None]
    by_answers = len({groups[at] for at in answered}) >= FEWEST_GROUPS
    tests = _exact_tests if by_answers else _contrast_tests
    measure = "exact answers" if by_answers else "own answer over another's"
    p_better, p_worse, p_facts, num_groups = tests(groups, base, best, tuned)
    p_loss = _loss_test(groups, base, tuned)
    p_ended = _gain(groups, base.ended, tuned.ended)
    p_values = {
        "better than prompting": p_better,
        "worse than prompting": p_worse,
        "better than the base without a prompt": p_facts,
        "lower loss on held-out answers": p_loss,
        "more answers end by themselves": p_ended,
    }
    if num_groups < FEWEST_GROUPS:
        help_: Help = "cannot tell"
    elif p_better <= LEVEL:
        help_ = "better than prompting"
    else:
        help_ = "worse than prompting" if p_worse <= LEVEL else "no better than prompting"
    facts = help_ == "better than prompting" or p_facts <= LEVEL
    form = not facts and help_ != "cannot tell" and min(p_loss, p_ended) <= LEVEL
    forgot = tuple(rise for rise in rises if rise.is_forgetting)
    beaten, beside = _against(nulls, groups, tuned, p_values)
    sentence = _sentence(help_, measure, form, facts, forgot, p_values, best, tuned, num_groups, beside)
    return Verdict(help_, measure, form, facts, forgot, p_values, sentence, beaten)


Tests = tuple[float, float, float, int]


def _exact_tests(groups: Sequence[str], base: Paired, best: Paired, tuned: Paired) -> Tests:
    """Return p-values of better and worse than the best prompt, and better than no prompt; and the groups compared."""
    compared = {group for group, value in zip(groups, tuned.exact, strict=True) if value is not None}
    return (
        _gain(groups, best.exact, tuned.exact),
        _gain(groups, tuned.exact, best.exact),
        _gain(groups, base.exact, tuned.exact),
        len(compared),
    )


def _contrast_tests(groups: Sequence[str], base: Paired, best: Paired, tuned: Paired) -> Tests:
    better = _contrast_gain(groups, best, tuned)
    return (
        permutation_test(better),
        permutation_test(-better),
        permutation_test(_contrast_gain(groups, base, tuned)),
        len(better),
    )


def _against(
    nulls: Sequence[Null], groups: Sequence[str], tuned: Paired, p_values: dict[str, float]
) -> tuple[str, list[str]]:
    """Return the claim that the best of the rules beats the tuned model, or an empty string; and a clause on it.

    The p-values of both directions are added to ``p_values``.
    """
    if not nulls:
        return "", []
    null = max(nulls, key=lambda null: sum(value is True for value in null.exact))
    p_better, p_worse = _gain(groups, null.exact, tuned.exact), _gain(groups, tuned.exact, null.exact)
    p_values[f"better than {null.name}"], p_values[f"beaten by {null.name}"] = p_better, p_worse
    count = sum(value is not None for value in tuned.exact)
    right = sum(value is True for value in null.exact)
    if p_worse <= LEVEL:
        beaten = f"beaten by {null.name}"
        return beaten, [f"{beaten}, which gets {right} of {count} right (p {p_words(p_worse)})"]
    than = "better than" if p_better <= LEVEL else "no better than"
    return "", [f"{than} {null.name}, which gets {right} of {count} right (p {p_words(p_better)})"]


def _contrast_gain(groups: Sequence[str], before: Paired, after: Paired) -> Floats:
    values, names = [], []
    for group, low, high in zip(groups, before.contrast, after.contrast, strict=True):
        if low is not None and high is not None:
            values.append(high - low)
            names.append(group)
    return sums_of_groups(values, names)


def _gain(groups: Sequence[str], before: Sequence[bool | None], after: Sequence[bool | None]) -> float:
    """Return the p-value of more successes ``after`` than ``before``, in pairs."""
    pairs = [
        (group, int(high) - int(low))
        for group, low, high in zip(groups, before, after, strict=True)
        if low is not None and high is not None
    ]
    if not pairs:
        return 1.0
    names, differences = zip(*pairs, strict=True)
    return sign_test([round(value) for value in sums_of_groups(differences, names)])


def _loss_test(groups: Sequence[str], base: Paired, tuned: Paired) -> float:
    fall = np.array(base.nats) - np.array(tuned.nats)
    return permutation_test(sums_of_groups(fall.tolist(), groups))


def _sentence(
    help_: Help,
    measure: str,
    form: bool,
    facts: bool,
    forgot: Sequence[Rise],
    p_values: dict[str, float],
    best: Paired,
    tuned: Paired,
    num_groups: int,
    beside: Sequence[str],
) -> str:
    parts = []
    if help_ == "cannot tell":
        parts.append(
            f"cannot tell whether it is better than prompting: {num_groups} different held-out questions, and at "
            f"least {FEWEST_GROUPS} are needed"
        )
    else:
        parts.append(f"{help_}: {_comparison(help_, measure, p_values, best, tuned)}")
        if form:
            parts.append(f"{FORM}: {_of_form(p_values)}, but the answers are no better")
        elif facts and help_ != "better than prompting":
            p = p_values["better than the base without a prompt"]
            parts.append(f"it learned what the base does not answer without a prompt (p {p_words(p)})")
        elif not facts:
            parts.append(NOTHING)
    return "; ".join([*parts, *beside, *words_of_cost(forgot)])


def words_of_cost(forgot: Sequence[Rise]) -> list[str]:
    """Return what was forgotten in words; none if nothing was."""
    costs = (
        f"{rise.name} by {rise.rise.value:+.3f} ({rise.rise.interval.low:+.3f} to "
        f"{rise.rise.interval.high:+.3f}) bits per byte"
        for rise in forgot
    )
    return [f"{FORGOT}: it predicts worse {' and '.join(costs)}"] if forgot else []


def _comparison(help_: Help, measure: str, p_values: dict[str, float], best: Paired, tuned: Paired) -> str:
    p = p_words(
        p_values["worse than prompting" if help_ == "worse than prompting" else "better than prompting"]
    )
    if measure == "exact answers":
        right = [sum(value is True for value in system.exact) for system in (tuned, best)]
        count = sum(value is not None for value in tuned.exact)
        return f"{right[0]} of {count} answers are right, {right[1]} of the base with its best prompt (p {p})"
    means = [
        float(np.mean([value for value in system.contrast if value is not None])) for system in (tuned, best)
    ]
    return (
        f"its own answer is {means[0]:.3f} nats per token more likely than another's, {means[1]:.3f} for the base "
        f"with its best prompt (p {p})"
    )


def _of_form(p_values: dict[str, float]) -> str:
    parts = []
    if p_values["lower loss on held-out answers"] <= LEVEL:
        parts.append(
            f"the loss on held-out answers fell (p {p_words(p_values['lower loss on held-out answers'])})"
        )
    if p_values["more answers end by themselves"] <= LEVEL:
        parts.append(
            f"more answers end by themselves (p {p_words(p_values['more answers end by themselves'])})"
        )
    return " and ".join(parts)


def p_words(value: float) -> str:
    """Return a p-value as it is printed."""
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def error_rates(num_answers: int) -> str:
    """Return how often the verdict is wrong, and on what condition where there are only a few different answers."""
    few = (
        f"; with fewer than {FEWEST_ANSWERS} different answers each question counts on its own: right for labels, but "
        "for a few facts in several wordings it claims too much"
    )
    return (
        f"of tunings without an effect, at most {100 * LEVEL:g} % are called better than prompting, and "
        f"{100 * LEVEL:g} % forgetful for each text{few if num_answers < FEWEST_ANSWERS else ''}"
    )
