"""The few-shot prompt for a question: the training questions that resemble it most, with their answers.

Two questions resemble each other by the share of words and pairs of words that they have in common (Dice 1945). The
most similar comes last, next to the question.
"""

from __future__ import annotations

import heapq
import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from etude.data.conversations.conversation import Example, Message
from etude.evaluate.tuning.held_out import Question, comparable, squeezed

MOST_EXAMPLES = 8
EXAMPLES = (2, 4, MOST_EXAMPLES)
"""Numbers of examples that are tried; the best counts."""
_WORD = re.compile(r"\w+")
_PLAIN = {"system": ("", "\n\n"), "user": ("Question: ", "\n"), "assistant": ("Answer: ", "\n\n")}
"""What stands before and after each turn in plain text."""


@dataclass(frozen=True)
class Shot:
    """A training question with its answer."""

    asked: str
    answer: str


@dataclass(frozen=True)
class TrainingAnswers:
    """What the held-out answers are compared with.

    Attributes:
        similar: for each held-out question the training questions that resemble it, the most similar first.
        answers: every training answer, with single blanks.
    """

    similar: tuple[tuple[Shot, ...], ...]
    answers: frozenset[str]

    @property
    def most_examples(self) -> int:
        """The number of examples that every question has."""
        return min(map(len, self.similar), default=0)


def training_answers(questions: Sequence[Question], training: Iterable[Question]) -> TrainingAnswers:
    """Read the training questions once, and keep all answers and the most similar questions."""
    parts = [_parts(question.asked) for question in questions]
    best: list[dict[Shot, tuple[float, int]]] = [{} for _ in questions]
    answers: set[str] = set()
    for number, trained in enumerate(training):
        answers.update(squeezed(text) for text in _answers(trained.example))
        own, shot = _parts(trained.asked), Shot(trained.asked, trained.answer)
        for wanted, kept in zip(parts, best, strict=True):
            rank = (_dice(wanted, own), -number)
            if shot in kept:
                continue
            if len(kept) == MOST_EXAMPLES:
                worst = min(kept, key=kept.__getitem__)
                if kept[worst] >= rank:
                    continue
                del kept[worst]
            kept[shot] = rank
    similar = (tuple(heapq.nlargest(MOST_EXAMPLES, kept, key=kept.__getitem__)) for kept in best)
    return TrainingAnswers(tuple(similar), frozenset(answers))


def prompted(question: Question, answer: str, shots: Sequence[Shot]) -> Example:
    """Return the question with an answer, after ``shots``, of which the first is the most similar."""
    example = question.with_answer(answer)
    if example.kind == "completion":
        before = "".join(f"{shot.asked}{shot.answer}\n\n" for shot in reversed(shots))
        return replace(example, text=before + example.text)
    system = [turn for turn in example.messages[:1] if turn.role == "system"]
    turns = [turn for shot in reversed(shots) for turn in _turns(shot)]
    messages = (*system, *turns, *example.messages[len(system) :])
    moved = tuple(number + len(turns) for number in example.untrained)
    return replace(example, messages=messages, untrained=moved)


def as_plain_text(example: Example) -> Example:
    """Return a conversation as text of a form that any base has read, with the last answer, and its line end, to write.

    A base that knows no chat template has never seen ChatML.
    """
    *before, last = example.messages
    turns = ((*_PLAIN[turn.role], turn.content) for turn in before)
    text = "".join(f"{begin}{content}{end}" for begin, end, content in turns)
    return Example("completion", text=f"{text}Answer:", completion=f" {last.content}\n")


def is_right(answer: str, reference: str) -> bool:
    """Return whether two answers are the same but for case, white space and final punctuation."""
    return comparable(answer) == comparable(reference)


def _turns(shot: Shot) -> tuple[Message, Message]:
    return Message("user", shot.asked), Message("assistant", shot.answer)


def _answers(example: Example) -> list[str]:
    if example.kind == "completion":
        return [example.completion]
    return [example.messages[number].content for number in example.trained_turns()]


def words_of(text: str) -> list[str]:
    """Return the words of a text, without case and punctuation."""
    return _WORD.findall(text.casefold())


def _parts(text: str) -> frozenset[str]:
    words = words_of(text)
    return frozenset((*words, *map(" ".join, itertools.pairwise(words))))


def _dice(one: frozenset[str], other: frozenset[str]) -> float:
    return 2 * len(one & other) / max(1, len(one) + len(other))
