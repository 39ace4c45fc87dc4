"""Dropout (Srivastava et al. 2014) from a hash instead of a random number generator.

Eight bits of a hash of (step seed, dropout place, row of the whole batch, element) decide whether an element is
dropped. So the masks are the same on every device and for every division into micro-batches and ranks, and a step is
replayed without any generator state. All masks of a micro-batch are computed before the forward pass, which takes a
fraction of the time of drawing random numbers; only those of an adapter's branches are computed in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

LEVELS = 256
"""Probabilities are rounded to multiples of 1 / LEVELS, since eight bits decide."""


@dataclass(frozen=True, slots=True)
class Dropout:
    """Dropout of one micro-batch.

    Attributes:
        keep_mask: one for each of the P places of dropout; None: nothing is dropped there.
        scale: factor of what is kept.
        branch_rows: the seed of the step, and the number of each row in the whole batch, from which the branches of an
            adapter compute their own masks (:func:`branch_keep_mask`); None: they drop nothing.
    """

    keep_mask: Bool[Tensor, "P B T D"] | None
    scale: float
    branch_rows: Int[Tensor, "B 2"] | None = None

    def __call__(self, x: Float[Tensor, "B T D"], place: int) -> Float[Tensor, "B T D"]:
        """Apply the mask of ``place`` and rescale, so that the expected value stays that of ``x``."""
        if self.keep_mask is None:
            return x
        return torch.where(self.keep_mask[place], x * self.scale, 0.0)  # (B, T, D)


def keep_scale(probability: float) -> float:
    """Return 1 / (1 - p), for p rounded to a multiple of 1 / LEVELS."""
    return LEVELS / (LEVELS - _level(probability))


def keep_masks(
    probability: float, seed: int, first_row: int, shape: Sequence[int], device: torch.device
) -> Bool[Tensor, "P B T D"]:
    """Return the keep masks of ``shape`` (P, B, T, D): True where an element is kept.

    Args:
        seed: 32 bits, a different one for each step.
        first_row: index of the first of these rows in the whole batch of the step.
    """
    places, rows, context, width = shape
    words = -(-context * width // 4)  # int32 hashes for each row: one holds the bytes of four elements
    first = first_row * words
    index = torch.arange(first, first + rows * words, dtype=torch.int64, device=device).to(torch.int32)
    seeds = torch.tensor([seed], dtype=torch.int32, device=device)
    place = torch.arange(places, dtype=torch.int32, device=device)
    # Hash twice; otherwise masks of two seeds are shifted copies of each other.
    hashes = _mixed(_mixed(index) ^ _mixed(_mixed(seeds) + place)[:, None])  # (P, B * words)
    levels = hashes.view(places, rows, words).view(torch.uint8)  # (P, B, 4 * words), each 0 to 255
    levels = levels[..., : context * width]  # (P, B, T * D)
    return (levels >= _level(probability)).view(places, rows, context, width)


def branch_keep_mask(
    probability: float, rows: Int[Tensor, "B 2"], place: int, context: int, width: int
) -> Bool[Tensor, "B T D"]:
    """Return the keep mask of one place, computed where it is used, so that not all masks are in memory together.

    Args:
        rows: the seed of the step, and the number of each row in the whole batch.
        place: a negative number, so that it is none of the places of :func:`keep_masks`.
    """
    words = -(-context * width // 4)
    seeds, numbers = rows.to(torch.int32).unbind(1)
    index = numbers[:, None] * words + torch.arange(words, dtype=torch.int32, device=rows.device)
    hashes = _mixed(_mixed(index) ^ _mixed(_mixed(seeds) + place)[:, None])  # (B, words)
    levels = hashes.view(torch.uint8)[:, : context * width]  # (B, T * D)
    return (levels >= _level(probability)).view(-1, context, width)


def _level(probability: float) -> int:
    """Return how many of the 256 levels are dropped: at least one, and not all."""
    return min(LEVELS - 1, max(1, round(probability * LEVELS)))


def _mixed(word: Tensor) -> Tensor:
    """Hash int32 words by the finalizer of MurmurHash3 (Appleby 2011): each input bit flips half of the output bits."""
    word = word ^ ((word >> 16) & 0xFFFF)  # int32 shifts keep the sign: mask it to have a logical shift
    word = word * -0x7A143595
    word = word ^ ((word >> 13) & 0x7FFFF)
    word = word * -0x3D4D51CB
    return word ^ ((word >> 16) & 0xFFFF)
