"""Probes put to a model, beside what counting and random weights make of the same items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from etude.evaluate.answerers import Answerer, ItemScore, Report
from etude.evaluate.items import Probe
from etude.evaluate.results import Measured, ProbeResult, measure


@dataclass
class Examination:
    """Fixed probes. What they must be held against is asked once, however many models follow.

    counting: answers from n-gram counts of the training text, None where that text is not known; random: networks of
    the model's shape with random weights, whose answers count together.
    """

    probes: Sequence[Probe]
    counting: Answerer | None
    random: Sequence[Answerer]
    _nulls: list[tuple[Measured | None, Measured | None]] | None = field(default=None, init=False)

    def results(self, model: Answerer, report: Report | None = None) -> list[ProbeResult]:
        """A result for each probe, in their order."""
        found = [measure(probe, scores) for probe, scores in self._asked(model, report)]
        return [
            ProbeResult(probe, measured, *nulls)
            for probe, measured, nulls in zip(self.probes, found, self.nulls, strict=True)
        ]

    @property
    def nulls(self) -> list[tuple[Measured | None, Measured | None]]:
        """(counting, random weights) for each probe."""
        if self._nulls is None:
            counting = self._measured([] if self.counting is None else [self.counting])
            self._nulls = list(zip(counting, self._measured(self.random), strict=True))
        return self._nulls

    def _measured(self, answerers: Sequence[Answerer]) -> list[Measured | None]:
        """How several answerers do together: the items of each count, and one item's answers are one group."""
        if not answerers:
            return [None] * len(self.probes)
        asked = [self._asked(answerer) for answerer in answerers]
        return [
            measure(probe, [score for every in asked for score in every[at][1]], times=len(answerers))
            for at, probe in enumerate(self.probes)
        ]

    def _asked(self, answerer: Answerer, report: Report | None = None) -> list[tuple[Probe, list[ItemScore]]]:
        """All items in one go, so that those of like length are scored together."""
        scores = answerer.answer([item for probe in self.probes for item in probe.items], report)
        found, done = [], 0
        for probe in self.probes:
            found.append((probe, scores[done : done + len(probe.items)]))
            done += len(probe.items)
        return found
