"""What a classification is compared with: always the commonest answer, and naive Bayes on the words of the question.

Training questions whose answers are a few short ones that repeat are a classification, and their answers are labels.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from etude.evaluate.tuning.held_out import Question, comparable
from etude.evaluate.tuning.prompting import is_right, words_of

MOST_LABELS = 20
LABEL_WORDS = 5
"""Most words of a label."""
FEWEST_REPEATS = 3
"""Fewest training questions for each label, on average."""
COMMONEST = "always the commonest answer"
NAIVE_BAYES = "naive Bayes on words"


@dataclass(frozen=True)
class Null:
    """A rule that needs no language model, and whether it answers each question right."""

    name: str
    exact: tuple[bool, ...]


@dataclass
class Labels:
    """The answers of training questions, with the words of their questions as long as they can be labels."""

    questions: Counter[str] = field(default_factory=Counter)
    words: dict[str, Counter[str]] = field(default_factory=dict)
    possible: bool = True

    def add(self, asked: str, answer: str) -> None:
        """Count a training question."""
        label = comparable(answer)
        if len(label.split()) > LABEL_WORDS or (label not in self.words and len(self.words) == MOST_LABELS):
            self.possible = False
        if self.possible:
            self.questions[label] += 1
            self.words.setdefault(label, Counter()).update(words_of(asked))

    def counted(self, questions: Iterable[Question]) -> Iterator[Question]:
        """Yield training questions, and count each."""
        for question in questions:
            self.add(question.asked, question.answer)
            yield question

    def nulls(self, questions: Sequence[Question]) -> list[Null]:
        """Return the rules with their results; none where the training questions are no classification."""
        count = len(self.words)
        if not self.possible or count < 2 or self.questions.total() < FEWEST_REPEATS * count:
            return []
        ((commonest, _),) = self.questions.most_common(1)
        answers = {
            COMMONEST: [commonest] * len(questions),
            NAIVE_BAYES: [self.likeliest(question.asked) for question in questions],
        }
        return [
            Null(name, tuple(is_right(own, q.answer) for own, q in zip(given, questions, strict=True)))
            for name, given in answers.items()
        ]

    def likeliest(self, asked: str) -> str:
        """Return the likeliest label of a question by multinomial naive Bayes, each word counted once more."""
        vocabulary = {word for counts in self.words.values() for word in counts}
        known = [word for word in words_of(asked) if word in vocabulary]

        def log_probability(label: str) -> float:
            counts = self.words[label]
            total = counts.total() + len(vocabulary)
            return math.log(self.questions[label]) + sum(
                math.log((counts[word] + 1) / total) for word in known
            )

        return max(self.words, key=log_probability)
