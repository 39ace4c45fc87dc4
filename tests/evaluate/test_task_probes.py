"""Probes of the task mixture: right by another solver, never shown, balanced, and at chance for counting."""

from __future__ import annotations

import re
from collections import Counter, defaultdict

import pytest

from at_chance import counted, measured, uniform
from etude.data.tasks.generator import document
from etude.data.tasks.people import PEOPLE, TOWNS
from etude.data.tasks.problem import is_held_out
from etude.data.tasks.search import held_out_in
from etude.data.tasks.strings import LONGEST_COPY
from etude.data.tasks.sums import sum_held_out
from etude.evaluate.contamination import question_text, search_training
from etude.evaluate.items import Probe, frozen
from etude.evaluate.task_probes import task_probes
from solver import solved


def title(probe: Probe) -> str:
    return probe.title


PROBES = task_probes(0, 48)
TRAINING = [document(0, index).text for index in range(1500)]


@pytest.mark.parametrize("probe", [one for one in PROBES if ": " in one.items[0].answer.given], ids=title)
def test_the_right_answer_follows_from_the_text(probe: Probe) -> None:
    for item in probe.items:
        question, answer = solved(item.answer.given)
        assert (question, answer) == (item.answer.given, item.answer.said)


def test_sums_and_people_are_right() -> None:
    by_name = {person.name: person for person in PEOPLE}
    for probe in PROBES:
        for item in probe.items:
            if probe.name == "two-digit addition":
                a, b = map(int, re.findall(r"\d+", item.answer.given))
                assert item.answer.said == f"{a + b}.\n"
                assert (a % 10 + b % 10 > 9) == (probe.condition == "carry")
            elif probe.title == "biographies, town":
                name = re.search(r"was (.*) born", item.answer.given)
                assert name is not None
                assert item.answer.said == by_name[name[1]].town
                assert {one.said for one in item.candidates} <= set(TOWNS)
            elif "reversed" in probe.condition:
                assert by_name[item.answer.said].house in item.answer.given


@pytest.mark.parametrize("probe", PROBES, ids=title)
def test_every_item_is_held_out(probe: Probe) -> None:
    for item in probe.items:
        keys = held_out_in(question_text(item))
        assert len(keys) == 1  # everything else in the text, such as the examples of a cipher, is taught
        (key,) = keys
        assert sum_held_out(*key[1:]) if key[0] == "add" else is_held_out(key)  # type: ignore[arg-type]


def test_training_shows_none_of_it() -> None:
    for found in search_training(PROBES, lambda: TRAINING, held_out_in):
        assert found.dropped == 0, found


def wording(text: str) -> tuple[str, ...]:
    """Return the words of a line that are not its content: without single letters, numbers, people and houses."""
    text = re.sub(r"[A-Z]\w+ [A-Z]\w+(?= (?:born|do|called|today))", "", text)
    return tuple(re.findall(r"[A-Za-z]{2,}", text))


def test_training_shows_the_form_of_every_question() -> None:
    forms = {wording(line) for one in TRAINING for line in one.split("\n")}
    for probe in PROBES:
        words = wording(probe.items[0].answer.given)
        assert any(form[: len(words)] == words for form in forms), probe.title


@pytest.mark.parametrize("probe", PROBES, ids=title)
def test_blocks_are_balanced_and_end_alike(probe: Probe) -> None:
    right: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    ends: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for item in probe.items:
        said = tuple(one.said for one in item.candidates)
        right[said][item.answer.said] += 1
        group = "" if probe.name == "biographies" else item.group
        ends[(group, *said)].add(item.answer.given[-7:])
    for said, times in right.items():
        assert set(times) == set(said)
        assert len(set(times.values())) == 1
    assert all(len(found) == 1 for found in ends.values())


def test_no_item_comes_twice() -> None:
    for probe in task_probes(0, 256):
        texts = [question_text(item) for item in probe.items]
        if probe.name not in {
            "two-digit addition",
            "few-shot cipher",
        }:  # these draw from a fixed list of problems
            assert len(set(texts)) == len(texts), probe.title


def test_uniform_logits_are_at_chance() -> None:
    answerer = uniform(TRAINING[:150])
    for probe in task_probes(1, 1):
        assert measured(probe, answerer).accuracy.value == pytest.approx(probe.chance), probe.title


def test_counting_is_at_chance() -> None:
    answerer = counted(TRAINING)
    for probe in PROBES:
        found = measured(probe, answerer).accuracy
        assert found.value == pytest.approx(probe.chance), probe.title
        assert found.interval.holds(probe.chance)


def size(name: str, text: str) -> int:
    """Return the number in a probe's condition."""
    if name == "brackets":
        return still_open(text)
    if name == "hops":
        return int(re.findall(r"after (\d)", text)[0])
    if name in {"key-value recall", "few-shot cipher"}:
        return text.count(" is " if "is" in text else " to ") - 1
    return len(text.split(": ")[1].split(".")[0].split())


def test_conditions_are_what_they_say() -> None:
    for probe in PROBES:
        for number in re.findall(r"\d+", probe.condition):
            assert {size(probe.name, item.answer.given) for item in probe.items} == {int(number)}, probe.title
    copied = [line for one in TRAINING for line in one.split("\n") if line.startswith("Copy")]
    assert max(size("copy", line) for line in copied) == LONGEST_COPY < 12


def still_open(text: str) -> int:
    return sum((mark in "([") - (mark in ")]") for mark in text)


def test_the_first_bracket_does_not_give_the_answer_away() -> None:
    for probe in PROBES:
        if probe.name == "brackets" and probe.condition != "depth 1":
            matching = {"(": ")", "[": "]"}
            right = [matching[item.answer.given.split()[1]] == item.answer.said for item in probe.items]
            assert sum(right) == len(right) / 2


def test_items_are_fixed_by_the_seed() -> None:
    assert frozen(task_probes(0, 48)) == frozen(PROBES)
    assert frozen(task_probes(1, 48)) != frozen(PROBES)
    assert all(len(probe.items) <= 48 for probe in PROBES)
    assert len({probe.title for probe in PROBES}) == len(PROBES)


def test_no_answer_is_the_beginning_of_another() -> None:
    for probe in PROBES:
        for item in probe.items:
            said = [one.said for one in item.candidates]
            assert not any(a != b and b.startswith(a) for a in said for b in said), (probe.title, said)


def test_answers_end_as_the_lines_of_the_documents_do() -> None:
    """The token after an answer is the same in training and in the probe."""
    tokenizer = uniform(TRAINING[:300]).tokenizer
    for probe in PROBES:
        item = probe.items[0]
        whole = tokenizer.encode(item.answer.given + item.answer.said)
        after = " )" if probe.name == "brackets" else ".\n"
        line = tokenizer.encode(item.answer.given + item.answer.said.removesuffix(".\n") + after)
        assert line[: len(whole)] == whole, probe.title
