"""The steps at which a run evaluates, samples, saves and summarises, and the length of its samples."""

from __future__ import annotations

from collections.abc import Callable

from etude.config import ResolvedTrain
from etude.run.checkpoints import is_never_pruned

EARLY_EVALUATIONS = frozenset([1, 2, 5, 10, 20, 50, 100])
"""Additional evaluations: most changes happen early, and a curve over log-steps needs early points."""
SCORING = 0.45
"""Time to score a token, relative to the time to train on it."""
SAMPLE_TOKENS = 100
CLOSING_SAMPLES, CLOSING_SAMPLE_TOKENS = 3, 120
"""Number and length of the samples at the end of a run."""

Due = Callable[[int], bool]
"""Returns whether a task is due after a step."""


def evaluation_due(train: ResolvedTrain) -> Due:
    """Return the steps of evaluations."""
    every, early = train.eval_every, EARLY_EVALUATIONS if train.eval_early else frozenset()
    return lambda step: step % every == 0 or step in early


def sample_due(train: ResolvedTrain) -> Due:
    """Return the steps of samples."""
    every = train.sample_every
    return lambda step: step % every == 0


def save_due(train: ResolvedTrain) -> Due:
    """Return the steps of checkpoints."""
    every = train.checkpoint_every
    return lambda step: step % every == 0 or is_never_pruned(step, train.keep_every)


def checksum_due(train: ResolvedTrain) -> Due:
    """Return the steps of checksums. ``checksum_every`` must not be 0."""
    return lambda step: step % train.checksum_every == 0


def summary_due(train: ResolvedTrain) -> Due:
    """Return the steps of summaries. ``summary_every`` must not be 0."""
    return lambda step: step % train.summary_every == 0 or step in EARLY_EVALUATIONS
