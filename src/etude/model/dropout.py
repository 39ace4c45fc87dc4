"""Dropout (Srivastava et al. 2014) whose choice is a function of the step, the row in its batch, and the place.

Nothing is drawn one after another. Whether a number is left out is told by eight bits of a hash of its index and the
step's seed: the same on every device and however a batch is divided into micro-batches and ranks. A step can be
replayed without a state. The masks are made before the network runs, which costs a fraction of what drawing does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

LEVELS = 256
"""Probabilities are whole multiples of 1 / LEVELS, the nearest to what was asked for."""


@dataclass(frozen=True, slots=True)
class Dropout:
    """What is kept at every place of a network that leaves out numbers, and how much larger the rest becomes."""

    kept: Bool[Tensor, "P B T D"]
    scale: float

    def __call__(self, x: Float[Tensor, "B T D"], place: int) -> Float[Tensor, "B T D"]:
        return torch.where(self.kept[place], x * self.scale, 0.0)


def kept_scale(probability: float) -> float:
    """One over the share that is kept."""
    return LEVELS / (LEVELS - _level(probability))


def kept_masks(
    probability: float, seed: int, first_row: int, shape: Sequence[int], device: torch.device
) -> Bool[Tensor, "P B T D"]:
    """True where a number is kept. ``seed``: the step's, 32 bits; ``first_row``: of the whole batch, at hand."""
    places, rows, context, width = shape
    words = -(-context * width // 4)
    first = first_row * words
    index = torch.arange(first, first + rows * words, dtype=torch.int64, device=device).to(torch.int32)
    seeds = torch.tensor([seed], dtype=torch.int32, device=device)
    place = torch.arange(places, dtype=torch.int32, device=device)
    # Mixed twice: two seeds then give two choices, and not one that is moved.
    drawn = _mixed(_mixed(index) ^ _mixed(_mixed(seeds) + place)[:, None])
    levels = drawn.view(places, rows, words).view(torch.uint8)[..., : context * width]
    return (levels >= _level(probability)).view(places, rows, context, width)


def _level(probability: float) -> int:
    """How many of the levels are left out: some of them, and not all."""
    return min(LEVELS - 1, max(1, round(probability * LEVELS)))


def _mixed(word: Tensor) -> Tensor:
    """The finalizer of MurmurHash3 (Appleby 2011): every bit of an int32 changes half of the result's."""
    word = word ^ ((word >> 16) & 0xFFFF)
    word = word * -0x7A143595
    word = word ^ ((word >> 13) & 0x7FFFF)
    word = word * -0x3D4D51CB
    return word ^ ((word >> 16) & 0xFFFF)
