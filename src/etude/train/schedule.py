"""Schedules of learning rate and momentum: pure functions of the step, so that any step can be replayed.

The length of a run with a time budget is revised while it trains; the functions then depend on these revisions too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from etude.config import ResolvedTrain

FIRST_MOMENTUM = 0.85
"""Momentum at the start of its warm-up."""

Revision = tuple[int, int]
"""(step, total): from `step` on, the planned length of the run is `total` steps."""


def last_step(num_steps: int, revisions: Sequence[Revision]) -> int:
    """Return the last step of a run: that of the last revision, or the planned one."""
    return revisions[-1][1] if revisions else num_steps


def planned_step(step: int, num_steps: int, revisions: Sequence[Revision]) -> float:
    """Map ``step`` of a run with revised length to a position in the original plan of ``num_steps``.

    A revision stretches or shortens the rest of the plan, linearly: the schedule stays continuous, and the last step
    of the run is the last of the plan. Without revisions the position is ``step`` itself.
    """
    start, position, end = (
        0,
        0.0,
        num_steps,
    )  # of the current stretch: first step, its position, the run's last step
    for revised_at, revised_end in revisions:
        if step <= revised_at:
            break
        position += (revised_at - start) * (num_steps - position) / (end - start)
        start, end = revised_at, revised_end
    return position + (step - start) * (num_steps - position) / (end - start) if start else float(step)


def lr_factor(step: float, settings: ResolvedTrain) -> float:
    """Return the factor of the peak learning rates for the update that makes ``step`` (from 1) of ``settings.steps``.

    Warm-up is linear from 1/warmup_steps to 1. Then ``linear`` and ``cosine`` decay towards ``min_lr_ratio``, which
    they would reach one step after the last; ``wsd`` (warmup-stable-decay, Hu et al. 2024, MiniCPM) stays at 1 and
    decays linearly over the last ``decay_fraction`` of the steps.

    Args:
        step: the :func:`planned_step`, where the length of the run was revised.
    """
    num_steps = settings.steps
    warmup_steps = round(settings.warmup_fraction * num_steps)
    if step <= warmup_steps:
        return step / max(1, warmup_steps)
    if settings.schedule == "wsd":
        decay_start = max(warmup_steps, num_steps - round(settings.decay_fraction * num_steps))
    else:
        decay_start = warmup_steps
    # + 1: with a factor of exactly 0 the last step would not change the weights.
    progress = max(0, step - decay_start) / (num_steps - decay_start + 1)
    remaining = 0.5 * (1 + math.cos(math.pi * progress)) if settings.schedule == "cosine" else 1 - progress
    return settings.min_lr_ratio + (1 - settings.min_lr_ratio) * remaining


def lr_factor_at(step: int, num_steps: int, revisions: Sequence[Revision], settings: ResolvedTrain) -> float:
    """Return the :func:`lr_factor` of a step in a run that was planned for ``num_steps``."""
    return lr_factor(planned_step(step, num_steps, revisions), settings)


def momentum(step: int, settings: ResolvedTrain) -> float:
    """Return the momentum for the update that makes ``step`` (from 1): a linear warm-up to ``settings.momentum``.

    Rules with a momentum receive it through `UpdateRule.schedule`.
    """
    progress = min(1.0, step / max(1, settings.momentum_warmup_steps))
    first = min(FIRST_MOMENTUM, settings.momentum)
    return first + (settings.momentum - first) * progress
