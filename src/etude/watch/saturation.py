"""The flat ends of activation functions: a node there hardly passes an error signal on."""

from __future__ import annotations

import torch
from torch import Tensor

END = 0.99
"""A node is at an end of its activation function beyond this share of the way, or below 1 - END of it."""


def ends(activation: str, x: Tensor) -> tuple[Tensor, Tensor]:
    """Whether each input stands at the lower or the upper end of the activation function, where it does not bend.

    tanh: its value beyond +-END. The others: what passes of the input, act(x) / x, below 1 - END or above END; ReLU
    squared has no upper end.
    """
    if activation == "tanh":
        return x.tanh() < -END, x.tanh() > END
    if activation in ("relu", "relu2"):
        return x <= 0, (x > 0) & (activation == "relu")
    passes = x.sigmoid() if activation == "silu" else torch.special.ndtr(x)
    return passes < 1 - END, passes > END
