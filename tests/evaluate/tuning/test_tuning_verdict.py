"""The verdict says what happened, and calls a tuning without an effect no help at the stated error rate."""

from __future__ import annotations

import math

import pytest
from simulated_tunings import Study, share_of, verdict

from etude.evaluate.statistics import Estimate, Interval
from etude.evaluate.tuning.classification import Null
from etude.evaluate.tuning.paired_tests import LEVEL
from etude.evaluate.tuning.verdict import (
    FORGOT,
    FORM,
    Paired,
    Rise,
    Verdict,
    error_rates,
    groups_of,
    verdict_of,
)

BETTER = "better than prompting"


def paired(exact: list[bool | None], nats: float = 20.0, ended: bool = False, other: float = 2.0) -> Paired:
    count = len(exact)
    return Paired((nats,) * count, (10,) * count, (other,) * count, tuple(exact), (ended,) * count)


GROUPS = [f"fact {number}" for number in range(12)]
NONE = paired([False] * 12)
LITTLE = paired([True] * 2 + [False] * 10)
RISE = Rise("source code", Estimate(0.2, 0.02, Interval(0.15, 0.25), 9))
NO_RISE = Rise("general text", Estimate(0.1, 0.1, Interval(-0.1, 0.3), 11))


def test_more_right_answers_than_the_prompted_base_are_help() -> None:
    result = verdict_of(GROUPS, NONE, LITTLE, paired([True] * 12, 1.0, True), [NO_RISE])
    assert result.claims == [BETTER]
    assert "12 of 12 answers are right, 2 of the base with its best prompt (p < 0.001)" in result.sentence
    assert result.p_values[BETTER] == 2.0**-10


def test_a_lower_loss_without_right_answers_is_form() -> None:
    result = verdict_of(GROUPS, NONE, LITTLE, paired([False] * 12, 10.0, True), [])
    assert result.claims == ["no better than prompting", FORM]
    assert "the loss on held-out answers fell" in result.sentence
    assert "more answers end by themselves" in result.sentence


def test_answers_that_end_by_themselves_are_form_even_at_the_same_loss() -> None:
    assert FORM in verdict_of(GROUPS, NONE, NONE, paired([False] * 12, 20.0, True), []).claims


def test_what_a_prompt_does_as_well_is_no_better_but_was_learned() -> None:
    best = paired([True] * 12)
    result = verdict_of(GROUPS, NONE, best, paired([True] * 12, 1.0, True), [])
    assert result.claims == ["no better than prompting"]
    assert result.learned_facts
    assert "learned what the base does not answer without a prompt" in result.sentence


def test_fewer_right_answers_than_the_prompted_base_are_called_worse() -> None:
    result = verdict_of(GROUPS, NONE, paired([True] * 12), NONE, [])
    assert result.help == "worse than prompting"
    assert not result.learned_form


def test_nothing_is_called_nothing() -> None:
    result = verdict_of(GROUPS, NONE, NONE, NONE, [NO_RISE])
    assert result.claims == ["no better than prompting"]
    assert "learned nothing" in result.sentence


def test_forgetting_is_said_with_its_number_beside_every_other_claim() -> None:
    for tuned in (paired([True] * 12), paired([False] * 12, 10.0)):
        result = verdict_of(GROUPS, NONE, NONE, tuned, [NO_RISE, RISE])
        assert result.claims[-1] == FORGOT
        assert "source code by +0.200 (+0.150 to +0.250) bits per byte" in result.sentence
        assert "general text" not in result.sentence


def test_too_few_questions_tell_nothing() -> None:
    few = Paired((1.0,) * 5, (1,) * 5, (9.0,) * 5, (True,) * 5, (True,) * 5)
    none = Paired((9.0,) * 5, (1,) * 5, (9.0,) * 5, (False,) * 5, (False,) * 5)
    answers = ["a", "b", "c", "d", "e"]
    result = verdict_of(groups_of(answers, answers), none, none, few, [])
    assert result.claims == ["cannot tell"]
    assert "at least 6 are needed" in result.sentence


def test_questions_with_the_same_answer_count_as_one_unless_answers_are_labels() -> None:
    facts = [f"fact {number}" for number in (0, 0, 0, 1, 2, 3, 4, 5, 6, 7)]
    questions = [str(number) for number in range(10)]
    assert len(set(groups_of(facts, questions))) == 8
    assert len(set(groups_of(["yes", "no"] * 5, questions))) == 10
    assert len(set(groups_of(["yes"] * 4, ["Is it?", "is it", "Why?", "Is it?"]))) == 2
    assert "few facts in several wordings" in error_rates(2)
    assert "few facts in several wordings" not in error_rates(8)


@pytest.mark.parametrize(
    ("right", "null", "beaten", "words"),
    [
        (4, 12, "beaten by bayes", "beaten by bayes, which gets 12 of 12 right (p = 0.004)"),
        (10, 11, "", "no better than bayes, which gets 11 of 12 right (p = "),
        (12, 2, "", "better than bayes, which gets 2 of 12 right (p < 0.001)"),
    ],
)
def test_a_classifier_is_compared_with_a_rule_that_needs_no_model(
    right: int, null: int, beaten: str, words: str
) -> None:
    tuned = paired([True] * right + [False] * (12 - right), 1.0, True)
    rules = [Null("the commonest", (False,) * 12), Null("bayes", (True,) * null + (False,) * (12 - null))]
    result = verdict_of(GROUPS, NONE, NONE, tuned, [], rules)
    assert words in result.sentence
    assert result.beaten == beaten
    assert (beaten in result.claims) == bool(beaten)
    assert "the commonest" not in result.sentence


def studies(study: Study, count: int) -> list[Verdict]:
    return [verdict(study, seed) for seed in range(count)]


def most(count: int, level: float = LEVEL) -> float:
    """The highest share that luck allows: three standard errors above the level."""
    return level + 3 * math.sqrt(level * (1 - level) / count)


NULLS = {
    "the base knows nothing": Study(),
    "the base knows a few without tuning": Study(base=(0.3, 0.3, 0.3, 0.3), tuned=0.3),
    "the base knows half": Study(base=(0.1, 0.5, 0.5, 0.5), tuned=0.5),
    "prompting finds most": Study(base=(0.0, 0.7, 0.9, 0.9), tuned=0.04),
    "several wordings of a fact": Study(questions=48, base=(0.3,) * 4, tuned=0.3, wordings=4),
    "long answers": Study(short=False),
    "long answers, few questions": Study(questions=8, short=False),
    "long answers, the prompt says much": Study(short=False, base_specific=0.5),
}
"""Answers shuffled among questions teach the form, and no answer: a right one is as likely as any other."""


@pytest.mark.parametrize("name", NULLS)
def test_a_tuning_on_shuffled_answers_is_called_no_help(name: str) -> None:
    count = 300
    results = studies(NULLS[name], count)
    assert share_of(results, BETTER) <= most(count)


@pytest.mark.slow
@pytest.mark.parametrize("name", NULLS)
def test_a_tuning_on_shuffled_answers_is_called_no_help_over_many_studies(name: str) -> None:
    count = 3000
    assert share_of(studies(NULLS[name], count), BETTER) <= most(count)


def test_of_a_null_tuning_the_form_is_named() -> None:
    assert share_of(studies(NULLS["the base knows nothing"], 200), FORM) > 0.95


@pytest.mark.parametrize(
    "study",
    [
        Study(base=(0.0, 0.1, 0.2, 0.2), tuned=0.9),
        Study(questions=12, base=(0.0, 0.04, 0.04, 0.04), tuned=0.92),
        Study(short=False, specific=1.5, base_specific=0.3),
    ],
)
def test_real_help_is_seen(study: Study) -> None:
    assert share_of(studies(study, 200), BETTER) > 0.9


def test_counting_every_wording_would_break_the_error_rate() -> None:
    """The reason for groups: without them, facts known by luck count several times."""
    study = Study(questions=96, base=(0.3,), tuned=0.3, wordings=8)
    assert share_of(studies(study, 400), BETTER) <= most(400)
    ungrouped = [verdict(study, seed, grouped=False) for seed in range(400)]
    assert share_of(ungrouped, BETTER) > 2 * LEVEL
