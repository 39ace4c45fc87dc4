"""The results of a probe, in one form for every ability, with all the scores needed for comparison."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from etude.evaluate.answerers import ItemScore
from etude.evaluate.items import Item, Probe
from etude.evaluate.statistics import Estimate, brier, credit, log_share, mean, proportion

SCHEMA = 1


@dataclass(frozen=True)
class Exact:
    """The right answer scored as if it were typed, token by token.

    exact: share of answers in which every token is the first guess; token: share of tokens that are; independence: what
    `exact` would be if each token were right with probability `token` independently of the others, the mean of token^L
    over the answers' lengths L in tokens (Schaeffer et al. 2023): a sharp curve of `exact` over a smooth one of `token`
    is an artefact of the metric; nats_per_token: of the right answer.
    """

    exact: Estimate
    token: Estimate
    independence: float
    nats_per_token: Estimate


@dataclass(frozen=True)
class Measured:
    """The scores of one answerer on the items of one probe.

    accuracy: thresholded, ties one half; margin: continuous, nats by which the right candidate's share of the
    probability exceeds an equal share (0 at chance); brier: of the shares; exact: for open answers of a network;
    credits: of each item, for differences between answerers (not recorded).
    """

    accuracy: Estimate
    margin: Estimate
    brier: float
    exact: Exact | None
    num_cut: int
    credits: tuple[float, ...] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True)
class ProbeResult:
    """A probe, answered by the model, by counting, and by networks with random weights."""

    probe: Probe
    model: Measured
    counting: Measured | None
    random: Measured | None

    @property
    def above_chance(self) -> bool:
        return self.model.accuracy.interval.low > self.probe.chance

    @property
    def beyond_counting(self) -> bool:
        """Whether counting and random weights are both measured, and both at chance within their intervals."""
        return all(
            null is not None and null.accuracy.interval.holds(self.probe.chance)
            for null in (self.counting, self.random)
        )

    @property
    def label(self) -> str:
        if self.counting is None:
            return "no null measured" if self.random is None else "not held against counting"
        if self.random is None:
            return "not held against random weights"
        if not self.above_chance:
            return "at chance"
        if self.beyond_counting:
            return "beyond counting"
        counted = self.counting.accuracy.interval
        if counted.holds(self.probe.chance):
            return "random weights are off chance"
        return "counting does it too" if counted.low > self.probe.chance else "counting is below chance"


def measure(probe: Probe, scores: Sequence[ItemScore], times: int = 1) -> Measured:
    """Compute the figures of `scores`, one for each item of the probe; all items may be answered several `times`."""
    items = probe.items * times
    groups = [item.group or f"item {at % len(probe.items)}" for at, item in enumerate(items)]
    compared = [_compared(probe, score) for score in scores]
    pairs = list(zip(items, compared, strict=True))
    credits = tuple(credit(values, item.right) for item, values in pairs)
    return Measured(
        proportion(credits, groups),
        mean([_margin(item, values) for item, values in pairs], groups),
        float(np.mean([brier(values, item.right) for item, values in pairs])),
        _exact(scores, groups) if probe.open_answer and len(scores[0].answer_credits) else None,
        sum(score.cut for score in scores),
        credits,
    )


def _compared(probe: Probe, score: ItemScore) -> np.ndarray:
    return score.logprobs / score.units if probe.per_token else score.logprobs


def _margin(item: Item, values: np.ndarray) -> float:
    return log_share(values, item.right) + math.log(len(item.candidates))


def _exact(scores: Sequence[ItemScore], groups: Sequence[str]) -> Exact:
    lengths = np.array([len(score.answer_credits) for score in scores])
    token = proportion([float(score.answer_credits.mean()) for score in scores], groups)
    return Exact(
        proportion([float(score.answer_credits.prod()) for score in scores], groups),
        token,
        float(np.mean(token.value**lengths)),
        mean([float(-score.answer_logprobs.mean()) for score in scores], groups),
    )
