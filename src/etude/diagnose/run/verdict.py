"""A rule, and its verdict on a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["problem", "notice", "fine", "not judged"]
SEVERITIES: tuple[Severity, ...] = ("problem", "notice", "fine", "not judged")
"""Worst first."""


@dataclass(frozen=True)
class Verdict:
    """The verdict of one rule on one run, in sentences that stand alone."""

    rule: str
    severity: Severity
    finding: str  # with the run's own numbers
    statement: str  # the rule itself
    advice: str = ""  # what to do, with the command to type


@dataclass(frozen=True)
class Rule:
    """A rule: its name, and one sentence that states when it applies."""

    name: str
    statement: str

    def problem(self, finding: str, advice: str) -> Verdict:
        """Return that the run is not what it was meant to be."""
        return Verdict(self.name, "problem", finding, self.statement, advice)

    def notice(self, finding: str, advice: str) -> Verdict:
        """Return something to know before drawing conclusions from the run."""
        return Verdict(self.name, "notice", finding, self.statement, advice)

    def fine(self, finding: str) -> Verdict:
        """Return that the rule was applied and found nothing."""
        return Verdict(self.name, "fine", finding, self.statement)

    def not_judged(self, why: str) -> Verdict:
        """Return that the run's folder lacks what the rule needs."""
        return Verdict(self.name, "not judged", why, self.statement)
