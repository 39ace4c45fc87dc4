"""Held-out questions of a run tuned on conversations: the turns before an answer, and that answer as the reference."""

from __future__ import annotations

import hashlib
import heapq
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from etude.data.conversations.conversation import Example, is_sampled
from etude.data.corpus.corpus import Corpus

_FINAL = re.compile("[\\s.!?,;:\u2026\u3002\uff01\uff1f]+\\Z")


@dataclass(frozen=True)
class Question:
    """A question with its reference answer.

    Attributes:
        example: the conversation up to the answer, which is its last turn; or a prompt with its completion.
        asked: the text of the last question.
        answer: the reference.
        kind: of the question, where the data name it.
    """

    example: Example
    asked: str
    answer: str
    kind: str = ""

    @property
    def key(self) -> str:
        """A hash of the content."""
        return hashlib.blake2b(self.example.to_json().encode("utf-8", "replace"), digest_size=16).hexdigest()

    def with_answer(self, answer: str) -> Example:
        """Return the example with another answer."""
        if self.example.kind == "completion":
            return replace(self.example, completion=answer)
        *before, last = self.example.messages
        return replace(self.example, messages=(*before, replace(last, content=answer)))


def question_of(example: Example) -> Question | None:
    """Return the last trained answer of an example with what precedes it; None for plain text."""
    if example.kind == "completion":
        return Question(example, example.text, example.completion)
    turns = example.trained_turns() if example.kind == "conversation" else []
    if not turns:
        return None
    messages = example.messages[: turns[-1] + 1]
    asked = next((turn.content for turn in reversed(messages) if turn.role == "user"), "")
    untrained = tuple(number for number in example.untrained if number < turns[-1])
    return Question(replace(example, messages=messages, untrained=untrained), asked, messages[-1].content)


def held_out_questions(
    documents: Iterable[bytes], most: int, kind_of: Callable[[int, Question], str] | None = None
) -> tuple[list[Question], int]:
    """Return at most ``most`` of the questions in the lines of a corpus, a fixed random choice, and their number.

    ``kind_of`` returns the kind of a question, given the number of its line.
    """
    questions = {}
    for number, document in enumerate(documents):
        question = question_of(Example.from_json(document.decode("utf-8")))
        if question is not None:
            kind = "" if kind_of is None else kind_of(number, question)
            questions[question.key] = replace(question, kind=kind)
    return [questions[key] for key in sorted(questions)[:most]], len(questions)


def some_questions(questions: Iterable[Question], most: int) -> list[Question]:
    """Return at most ``most`` of the questions, a fixed random choice."""
    return heapq.nsmallest(most, questions, key=lambda question: question.key)


def training_questions(corpus: Corpus) -> Iterator[Question]:
    """Yield the question of every training example that has one, without those that were sampled from the base."""
    documents = enumerate(corpus.documents("train"))
    return _questions(
        document for number, document in documents if not is_sampled(corpus.name("train", number)[1])
    )


def _questions(documents: Iterable[bytes]) -> Iterator[Question]:
    for document in documents:
        question = question_of(Example.from_json(document.decode("utf-8")))
        if question is not None:
            yield question


def comparable(answer: str) -> str:
    """Return an answer in the form in which two are compared: without case, extra white space and final punctuation."""
    text = squeezed(unicodedata.normalize("NFC", answer)).casefold()
    return _FINAL.sub("", text) or text


def squeezed(text: str) -> str:
    """Return a text with single blanks as its only white space."""
    return " ".join(text.split())
