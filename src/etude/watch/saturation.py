"""The flat ends of activation functions, where a neuron passes almost no gradient on."""

from __future__ import annotations

import torch
from torch import Tensor

END = 0.99
"""A neuron is at an end of its activation function beyond this share of its range, or below 1 - END of it."""


def ends(activation: str, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return for each input whether it is at the lower, and whether at the upper, flat end of the activation function.

    tanh: its value beyond +-END. The others: the share of the input that passes, act(x) / x, below 1 - END or above
    END; ReLU squared has no upper end.
    """
    if activation == "tanh":
        return x.tanh() < -END, x.tanh() > END
    if activation in ("relu", "relu2"):
        return x <= 0, (x > 0) & (activation == "relu")
    passes = x.sigmoid() if activation == "silu" else torch.special.ndtr(x)
    return passes < 1 - END, passes > END
