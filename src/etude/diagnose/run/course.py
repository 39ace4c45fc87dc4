"""What the losses of a run show, in the order of causes: they are not finite, they diverged, or the text was memorised.

A later fault is looked for only without an earlier one: a loss that diverged shows nothing about memorising.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from etude.run.events import EvalEvent, StepEvent
from etude.run.history import RunHistory

FEWEST_STEPS = 10
"""Before so many updates, and during warm-up, a run need not have learned anything."""
LEAST_FALL = 0.02
"""A network starts with a uniform prediction; token frequencies alone lower its loss by more than this share."""
BLOCKS = 20
"""The run is divided into so many parts, whose medians no single batch decides."""

ABOVE_UNTRAINED, GAIN_LOST, HUGE = 0.05, 0.5, 2.0
"""A run diverged if its training loss ends this share above that of the untrained network, or has lost this share of
what it had gained; in a run too short for medians, if it ends this many times above the untrained loss."""

OVERFIT_NOTICE, OVERFIT_PROBLEM = 0.01, 0.05
"""Generalisation loss (Prechelt 1998, "Early Stopping - But When?"): the lowest and the highest of his thresholds."""
EVALS_AFTER = 2


@dataclass(frozen=True)
class NotFinite:
    """Losses or gradients that were not finite."""

    step: int  # the first
    skipped: int  # updates
    recovered: bool  # the last training loss and the last held-out loss are finite


@dataclass(frozen=True)
class Divergence:
    """A training loss that rose and stayed up, in nats per token."""

    step: int  # from which it rose
    lowest: float  # its level before
    last_step: int
    last: float  # its level at the end


@dataclass(frozen=True)
class HeldOutRise:
    """A held-out loss that rose from its lowest, and the training loss after that and at the end; nats per token."""

    best: EvalEvent
    last: EvalEvent
    training_then: float
    training_now: float

    @property
    def share(self) -> float:
        return self.last.val_loss / self.best.val_loss - 1

    @property
    def by_heart(self) -> bool:
        """Whether the text is being memorised: the training loss fell meanwhile."""
        return self.training_now < (1 - OVERFIT_NOTICE) * self.training_then


def not_finite(history: RunHistory) -> NotFinite | None:
    """Return where numbers stopped being finite; None if all are."""
    broken = [e.step for e in history.steps if not (math.isfinite(e.loss) and math.isfinite(e.grad_norm))]
    evals = [event.step for event in history.evals if not math.isfinite(event.val_loss)]
    bad_steps = sorted({*broken, *history.skipped, *evals})
    if not bad_steps:
        return None
    last_step = max([event.step for event in history.steps] + history.skipped, default=0)
    last_eval = history.evals[-1].step if history.evals else -1
    ends_badly = last_step in {*broken, *history.skipped} or last_eval in evals
    return NotFinite(bad_steps[0], len(history.skipped), recovered=not ends_badly)


def divergence(steps: Sequence[StepEvent], untrained: float) -> Divergence | None:
    """Return where the training loss began to rise for good; None if it did not.

    Args:
        steps: in order, with finite losses.
        untrained: nats per token of the network at step 0.
    """
    if len(steps) < 2:
        return None
    width = max(1, min(3, len(steps) // 4), len(steps) // BLOCKS)
    losses = [event.loss for event in steps]
    levels = [median(losses[at : at + width]) for at in range(len(losses) % width, len(losses), width)]
    last, lowest = levels[-1], min(untrained, *levels)
    above = last > (1 + ABOVE_UNTRAINED) * untrained
    gained = untrained - lowest
    lost = gained > LEAST_FALL * untrained and last - lowest > GAIN_LOST * gained
    if not (above or lost) or (len(steps) < FEWEST_STEPS and last < HUGE * untrained):
        return None
    low = [event.step for event in steps if event.loss <= (1 + LEAST_FALL) * lowest]
    return Divergence(low[-1] + 1 if low else steps[0].step, lowest, steps[-1].step, last)


def held_out_rise(
    steps: Sequence[StepEvent], evals: Sequence[EvalEvent], untrained: float
) -> HeldOutRise | None:
    """Return how far the held-out loss rose from its lowest; None if it did not, or only at one evaluation."""
    if not evals:
        return None
    best, last = min(evals, key=lambda event: event.val_loss), evals[-1]
    after = [event for event in evals if event.step > best.step]
    if len(after) < EVALS_AFTER or last.val_loss < (1 + OVERFIT_NOTICE) * best.val_loss:
        return None
    between = [event.loss for event in steps if best.step < event.step <= last.step]
    if not between:
        return HeldOutRise(best, last, untrained, untrained)
    # Only steps after the lowest held-out loss: a median over the descent before it would always be higher.
    width = max(1, min(len(between) // 3, max(FEWEST_STEPS, last.step // BLOCKS)))
    return HeldOutRise(best, last, median(between[:width]), median(between[-width:]))
