"""Score probes with a model beside its nulls: answers from n-gram counts, and from random weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from etude.evaluate.answerers import Answerer, ItemScore, Report
from etude.evaluate.items import Probe
from etude.evaluate.results import Measured, ProbeResult, measure


@dataclass
class NullComparison:
    """Fixed probes with the scores of their nulls, which are computed once, however many models follow.

    counting: answers from n-gram counts of the training text, None if that text is unknown; random: networks of the
    model's shape with random weights, whose answers are pooled; random_items: at most how many items of each probe
    these answer, None for all.
    """

    probes: Sequence[Probe]
    counting: Answerer | None
    random: Sequence[Answerer]
    random_items: int | None = None
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
            counting = _measured(self.probes, [] if self.counting is None else [self.counting])
            fewer = [first_groups(probe, self.random_items) for probe in self.probes]
            self._nulls = list(zip(counting, _measured(fewer, self.random), strict=True))
        return self._nulls

    def _scores_of(
        self, answerer: Answerer, report: Report | None = None
    ) -> list[tuple[Probe, list[ItemScore]]]:
        return list(zip(self.probes, _scores(self.probes, answerer, report), strict=True))


def first_groups(probe: Probe, most: int | None) -> Probe:
    """Return the probe with at most ``most`` items: the first groups that fit, at least one, each whole.

    Items that mirror each other are in one group, so they stay together.
    """
    if most is None or len(probe.items) <= most:
        return probe
    sizes = Counter(name for name in _groups(probe))
    chosen: set[str] = set()
    left = most
    for name, size in sizes.items():
        if chosen and size > left:
            break
        chosen.add(name)
        left -= size
    kept = tuple(item for item, name in zip(probe.items, _groups(probe), strict=True) if name in chosen)
    return replace(probe, items=kept)


def _groups(probe: Probe) -> list[str]:
    return [item.group or f"item {at}" for at, item in enumerate(probe.items)]


def _measured(probes: Sequence[Probe], answerers: Sequence[Answerer]) -> list[Measured | None]:
    """Measure several answerers together: all their items count, and all answers to one item form a group."""
    if not answerers:
        return [None] * len(probes)
    answers = [_scores(probes, answerer) for answerer in answerers]
    return [
        measure(probe, [score for every in answers for score in every[at]], times=len(answerers))
        for at, probe in enumerate(probes)
    ]


def _scores(
    probes: Sequence[Probe], answerer: Answerer, report: Report | None = None
) -> list[list[ItemScore]]:
    """Answer all items in one call, so that items of similar length are scored together."""
    scores = answerer.answer([item for probe in probes for item in probe.items], report)
    by_probe, done = [], 0
    for probe in probes:
        by_probe.append(scores[done : done + len(probe.items)])
        done += len(probe.items)
    return by_probe
