"""Training losses of a tuning that trains samples of its base beside the answers, simulated."""

from __future__ import annotations

import numpy as np


def mixed(count: int, seed: int = 0, replay: float = 0.1, rows: int = 8) -> tuple[list[float], list[float]]:
    """Return the losses of a tuning that soon knows its answers and trains samples of its base too; and their shares.

    A row is of samples or of answers. Samples have about 2.8 nats per token, and answers 0.05 at the end.
    """
    noise = np.random.default_rng(seed)
    shares = noise.binomial(rows, replay, count) / rows
    answers = 0.05 + 2.5 * np.exp(-np.arange(count) / 30) + 0.01 * noise.standard_normal(count)
    samples = 2.8 + 0.25 * noise.standard_normal(count) / np.sqrt(np.maximum(1, rows * shares))
    return list((1 - shares) * answers + shares * samples), list(shares)
