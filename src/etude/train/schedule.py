"""How learning rate and momentum move through a run: pure functions of the step (and of the
revisions of a run that keeps a time), so that any step can be replayed."""

from __future__ import annotations

import math
from collections.abc import Sequence

from etude.config import ResolvedTrain

FIRST_MOMENTUM = 0.85


Revision = tuple[int, int]
"""After this step the run was to have so many steps in all, instead of as many as before."""


def last_step(num_steps: int, revisions: Sequence[Revision]) -> int:
    """The step that a run ends with: the planned one, or what the last revision says."""
    return revisions[-1][1] if revisions else num_steps


def planned_step(step: int, num_steps: int, revisions: Sequence[Revision]) -> float:
    """Where ``step`` of a run whose length was revised stands in the plan of ``num_steps``.

    A revision changes how fast the rest of the plan is gone through, so that the last step is the plan's last one too
    and nothing jumps: without revisions it is ``step`` itself.
    """
    here, position, end = 0, 0.0, num_steps
    for revised_at, revised_end in revisions:
        if step <= revised_at:
            break
        position += (revised_at - here) * (num_steps - position) / (end - here)
        here, end = revised_at, revised_end
    return position + (step - here) * (num_steps - position) / (end - here) if here else float(step)


def lr_factor(step: float, settings: ResolvedTrain) -> float:
    """What multiplies the peak learning rates for the update that makes step ``step`` (from 1) of ``settings.steps``.

    Of a run whose length was revised ``step`` is the :func:`planned_step`.

    Warm-up is linear from 1/warmup_steps to 1. Then ``linear`` and ``cosine`` fall towards ``min_lr_ratio``, which they
    would reach one step after the last; ``wsd`` (warmup-stable-decay, Hu et al. 2024, MiniCPM) stays at 1 and does the
    same over the last ``decay_fraction`` of the steps.
    """
    num_steps = settings.steps
    warmup_steps = round(settings.warmup_fraction * num_steps)
    if step <= warmup_steps:
        return step / max(1, warmup_steps)
    if settings.schedule == "wsd":
        decay_start = max(warmup_steps, num_steps - round(settings.decay_fraction * num_steps))
    else:
        decay_start = warmup_steps
    # The last update still moves: with a factor of exactly 0 it would be a step without a step.
    progress = max(0, step - decay_start) / (num_steps - decay_start + 1)
    remaining = 0.5 * (1 + math.cos(math.pi * progress)) if settings.schedule == "cosine" else 1 - progress
    return settings.min_lr_ratio + (1 - settings.min_lr_ratio) * remaining


def lr_factor_at(step: int, num_steps: int, revisions: Sequence[Revision], settings: ResolvedTrain) -> float:
    """The :func:`lr_factor` of a step of a run that was planned for ``num_steps``."""
    return lr_factor(planned_step(step, num_steps, revisions), settings)


def momentum(step: int, settings: ResolvedTrain) -> float:
    """Return the momentum for the update that makes step ``step`` (from 1): it grows to ``settings.momentum``.

    For the rules that follow it (`UpdateRule.schedule`).
    """
    progress = min(1.0, step / max(1, settings.momentum_warmup_steps))
    first = min(FIRST_MOMENTUM, settings.momentum)
    return first + (settings.momentum - first) * progress
