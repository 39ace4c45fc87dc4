"""Put probes to a model, and to counting and random weights for comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from etude.evaluate.answerers import Answerer, ItemScore, Report
from etude.evaluate.items import Probe
from etude.evaluate.results import Measured, ProbeResult, measure


@dataclass
class Examination:
    """Fixed probes. The scores for comparison are computed once, however many models follow.

    counting: answers from n-gram counts of the training text, None if that text is unknown; random: networks of the
    model's shape with random weights, whose answers are pooled.
    """

    probes: Sequence[Probe]
    counting: Answerer | None
    random: Sequence[Answerer]
    _nulls: list[tuple[Measured | None, Measured | None]] | None = field(default=None, init=False)

    def results(self, model: Answerer, report: Report | None = None) -> list[ProbeResult]:
        """Return a result for each probe, in their order."""
        model_scores = [measure(probe, scores) for probe, scores in self._scores_of(model, report)]
        return [
            ProbeResult(probe, measured, *nulls)
            for probe, measured, nulls in zip(self.probes, model_scores, self.nulls, strict=True)
        ]

    @property
    def nulls(self) -> list[tuple[Measured | None, Measured | None]]:
        """(counting, random weights) for each probe."""
        if self._nulls is None:
            counting = self._measured([] if self.counting is None else [self.counting])
            self._nulls = list(zip(counting, self._measured(self.random), strict=True))
        return self._nulls

    def _measured(self, answerers: Sequence[Answerer]) -> list[Measured | None]:
        """Measure several answerers together: all their items count, and all answers to one item form a group."""
        if not answerers:
            return [None] * len(self.probes)
        answers = [self._scores_of(answerer) for answerer in answerers]
        return [
            measure(probe, [score for every in answers for score in every[at][1]], times=len(answerers))
            for at, probe in enumerate(self.probes)
        ]

    def _scores_of(
        self, answerer: Answerer, report: Report | None = None
    ) -> list[tuple[Probe, list[ItemScore]]]:
        """Answer all items in one call, so that items of similar length are scored together."""
        scores = answerer.answer([item for probe in self.probes for item in probe.items], report)
        by_probe, done = [], 0
        for probe in self.probes:
            by_probe.append((probe, scores[done : done + len(probe.items)]))
            done += len(probe.items)
        return by_probe
