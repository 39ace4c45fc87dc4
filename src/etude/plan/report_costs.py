"""What the report at the end of a tuned run costs, and how many questions fit a time."""

from __future__ import annotations

import math
from dataclasses import dataclass

from etude.plan.tuning_values import CAREFUL, LEAST_QUESTIONS


@dataclass(frozen=True)
class ReportWork:
    """The work of a report: of the base, the base with prompts, and the tuned model, which are its systems.

    Attributes:
        questions: that are held out, at most as many as a report asks.
        at_once: questions that are answered together.
        text_tokens: tokens of the reference texts, in all.
        read_tokens: tokens that are read for one question, in all systems.
        new_tokens: tokens that are generated one after another for one block of questions, in all systems.
        preparing: seconds before the first question.
        searching: seconds for one question, to find the training questions that resemble it.
    """

    questions: int
    at_once: int
    text_tokens: float
    read_tokens: float
    new_tokens: float
    preparing: float = 0.0
    searching: float = 0.0

    def seconds(self, questions: int, token: float, generated: float) -> float:
        """Predict the seconds of a report on so many questions.

        Args:
            token: seconds to read one token, among many.
            generated: seconds to generate one token after another, in one row.
        """
        # A generated token takes its own time once, and that of reading for every row of the block.
        block = min(questions, self.at_once)
        new = math.ceil(questions / self.at_once) * self.new_tokens * (generated + block * token)
        read = token * (self.text_tokens + questions * self.read_tokens)
        return CAREFUL * (self.preparing + questions * self.searching + read + new)

    def fitting(self, seconds: float, token: float, generated: float) -> int:
        """Return the most questions whose report fits, and at least the fewest that a report asks."""
        counts = range(self.questions, self.least, -1)
        return next((n for n in counts if self.seconds(n, token, generated) <= seconds), self.least)

    @property
    def least(self) -> int:
        """The fewest questions that a report asks."""
        return min(self.questions, LEAST_QUESTIONS)
