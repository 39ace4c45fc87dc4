"""The built-in questions with checked answers: what each asks, what is right, and what is held out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import islice

import pytest

from etude.data.checked import generator
from etude.data.checked.generator import copying, forms, is_right, sums
from etude.data.conversations.conversation import Example
from etude.data.corpus.example_split import part_of
from etude.data.document import Document
from etude.data.tasks.search import held_out_in

TASKS = (sums, copying, forms)
Task = Callable[[int], Iterator[Document]]


def turns(document: Document) -> tuple[str, str]:
    question, answer = Example.from_json(document.text).messages
    return question.content, answer.content


def content(question: str) -> frozenset[str]:
    """Return what a question is about, regardless of its wording and order: its numbers, letters or words."""
    if numbers := re.findall(r"\d+", question):
        return frozenset([min(numbers, key=int) + "+" + max(numbers, key=int)])
    return frozenset(["".join(sorted(re.findall(r"[a-z]+", question.partition(": ")[2])))])


@pytest.mark.parametrize("task", TASKS)
def test_the_answers_are_right_and_the_parts_are_apart(task: Task) -> None:
    made = list(islice(task(3), 600))
    assert made[:50] == list(islice(task(3), 50))
    assert made[1] != next(islice(task(4), 1, 2))
    seen: dict[str, set[frozenset[str]]] = {"train": set(), "validation": set()}
    for document in made:
        part = part_of(document.origin)
        assert part is not None
        seen[part].add(content(turns(document)[0]))
    assert len(made) // 25 < len([d for d in made if part_of(d.origin) == "validation"]) < len(made) // 10
    assert not seen["train"] & seen["validation"]


def test_each_answer_follows_from_its_question() -> None:
    for document in islice(sums(1), 200):
        question, answer = turns(document)
        assert int(answer) == sum(map(int, re.findall(r"\d+", question)))
        assert bool(held_out_in(question)) == (part_of(document.origin) == "validation")
    for document in islice(copying(1), 200):
        question, answer = turns(document)
        assert question.endswith(f": {answer}")
    for document in islice(forms(1), 200):
        question, answer = turns(document)
        words = question.partition(": ")[2].split(", ")
        assert re.findall("[a-z]+", answer) == words
        between = {"hyphens": "-", "semicolons": "; ", "slashes": "/"}
        (mark,) = [mark for name, mark in between.items() if name in question]
        assert answer.strip("[]()") == mark.join(words)


@pytest.mark.parametrize(
    ("answer", "right"),
    [("85", True), (" 85.\n", True), ("85.0", False), ("It is 85", False), ("", False), ("58", False)],
)
def test_an_answer_is_checked_as_it_is(answer: str, right: bool) -> None:
    assert is_right(answer, "85") is right


def test_every_source_is_a_built_in_one() -> None:
    from etude.data.reading.builtin import GENERATED

    assert {name for name in GENERATED if name in generator.SOURCES} == set(generator.SOURCES)
