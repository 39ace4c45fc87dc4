"""When a run is evaluated, sampled, saved and summarised, and how long its samples are."""

from __future__ import annotations

from collections.abc import Callable

from etude.config import ResolvedTrain
from etude.run.checkpoints import kept_for_good

EARLY_EVALUATIONS = frozenset([1, 2, 5, 10, 20, 50, 100])
"""Besides the regular ones: most of what can be seen happens early, and a curve over log-steps needs it."""
SAMPLE_TOKENS = 100
CLOSING_SAMPLES, CLOSING_SAMPLE_TOKENS = 3, 120
"""What a finished model says, and how long."""

Due = Callable[[int], bool]
"""Whether something is to be done after a step."""


def evaluation_due(train: ResolvedTrain) -> Due:
    every = train.eval_every
    return lambda step: step % every == 0 or step in EARLY_EVALUATIONS


def sample_due(train: ResolvedTrain) -> Due:
    every = train.sample_every
    return lambda step: step % every == 0


def save_due(train: ResolvedTrain) -> Due:
    every = train.checkpoint_every
    return lambda step: step % every == 0 or kept_for_good(step, train.keep_every)


def checksum_due(train: ResolvedTrain) -> Due:
    """Only where there are to be any."""
    return lambda step: step % train.checksum_every == 0


def summary_due(train: ResolvedTrain) -> Due:
    """Only where there are to be any."""
    return lambda step: step % train.summary_every == 0 or step in EARLY_EVALUATIONS
