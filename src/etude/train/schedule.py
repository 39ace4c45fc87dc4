"""How the learning rate moves through a run: pure functions of the step, so that any step can be replayed.

A schedule gives a factor between ``min_lr_ratio`` and 1 that multiplies the peak learning rate.
"""

from __future__ import annotations

import math

from etude.config import TrainSettings, resolved


def lr_factor(step: int, settings: TrainSettings) -> float:
    """The factor for the update that makes step ``step`` (counted from 1) out of ``settings.steps``.

    Warm-up is linear from 1/warmup_steps to 1. Then ``linear`` and ``cosine`` fall towards ``min_lr_ratio``, which they
    would reach one step after the last; ``wsd`` (warmup-stable-decay, Hu et al. 2024, MiniCPM) stays at 1 and does the
    same over the last ``decay_fraction`` of the steps.
    """
    num_steps = resolved(settings.steps, "train.steps")
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
