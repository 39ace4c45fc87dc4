"""A rule, and its verdict on a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["problem", "notice", "fine", "not judged"]
SEVERITIES: tuple[Severity, ...] = ("problem", "notice", "fine", "not judged")
"""Worst first."""


@dataclass(frozen=True)
class Verdict:
    """What one rule says of one run, in sentences that stand alone."""

    rule: str
    severity: Severity
    finding: str  # with the run's own numbers
    statement: str  # the rule itself
    advice: str = ""  # what to do, with the command to type


@dataclass(frozen=True)
class Rule:
    """A name, and one sentence that says when it speaks."""

    name: str
    statement: str

    def problem(self, finding: str, advice: str) -> Verdict:
        """The run is not what it was meant to be."""
        return Verdict(self.name, "problem", finding, self.statement, advice)

    def notice(self, finding: str, advice: str) -> Verdict:
        """Worth knowing before anything is concluded from the run."""
        return Verdict(self.name, "notice", finding, self.statement, advice)

    def fine(self, finding: str) -> Verdict:
        """The rule was applied and found nothing."""
        return Verdict(self.name, "fine", finding, self.statement)

    def not_judged(self, why: str) -> Verdict:
        """The run's folder does not hold what the rule needs."""
        return Verdict(self.name, "not judged", why, self.statement)
