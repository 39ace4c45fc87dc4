"""Muon on matrices of which each process holds a piece: one sum of small Gram matrices for a whole step.

The iteration needs X X^T of each block X (R, C), R <= C. If X is cut along C, that is the sum of the pieces' own
products, and Q X of a piece needs Q and that piece alone (newton_schulz.py). So the processes exchange R x R matrices,
where gathering would move all of X. A matrix that is cut otherwise is gathered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from etude.model.pieces import cut_dimension, like, local, place, shard_mesh, whole
from etude.train.rules.blocks import by_shape, wide_blocks
from etude.train.rules.newton_schulz import orthogonalizing_factors


@dataclass(frozen=True, slots=True)
class PieceUpdate:
    """The update of one divided matrix; ``direction`` is this process's piece of it."""

    parameter: Any
    direction: Tensor
    blocks: tuple[int, int]  # of rows, of columns
    rate: float
    decay_factor: float

    @property
    def sums_grams(self) -> bool:
        """Whether the cut runs along the long side of each block."""
        return sums_grams(tuple(self.parameter.shape), self.blocks, cut_dimension(self.parameter))

    def local_blocks(self, tensor: Tensor) -> Tensor:
        """View this process's piece of a matrix as blocks (N, R, c): whole short sides, parts of the long ones."""
        rows, columns = tensor.shape
        row_blocks, column_blocks = self.blocks
        if cut_dimension(self.parameter) == 1:
            return tensor.view(row_blocks, rows // row_blocks, columns)
        return tensor.view(rows, column_blocks, columns // column_blocks).permute(1, 2, 0)


def sums_grams(shape: tuple[int, ...], blocks: tuple[int, int], cut: int) -> bool:
    """Return whether pieces along dimension ``cut`` are parts of the long sides of a matrix's blocks.

    Both sides of a square block count as long.
    """
    rows, columns = shape[0] // blocks[0], shape[1] // blocks[1]
    long, divided = (columns >= rows, blocks[1] > 1) if cut == 1 else (rows >= columns, blocks[0] > 1)
    return long and not divided


def apply_to_pieces(updates: Sequence[PieceUpdate]) -> None:
    """Apply the updates. All processes must call this with their pieces of the same matrices."""
    summed = [update for update in updates if update.sums_grams]
    directions = [update.local_blocks(update.direction) for update in summed]
    grams = [torch.bmm(direction, direction.mT) for direction in directions]
    if grams:
        _add_up(grams, shard_mesh(summed[0].parameter.device_mesh).get_group())
    for update, direction, factor in zip(
        summed, directions, by_shape(grams, orthogonalizing_factors), strict=True
    ):
        weights = update.local_blocks(local(update.parameter))
        weights.baddbmm_(factor, direction, beta=update.decay_factor, alpha=-update.rate)
    for update in updates:
        if not update.sums_grams:
            _apply_gathered(update)


def _add_up(grams: Sequence[Tensor], group: Any) -> None:
    """Replace each Gram matrix by its sum over the processes, in one message."""
    joined = torch.cat([gram.reshape(-1) for gram in grams])
    dist.all_reduce(joined, group=group)
    for gram, part in zip(grams, torch.split(joined, [gram.numel() for gram in grams]), strict=True):
        gram.copy_(part.view_as(gram))


def _apply_gathered(update: PieceUpdate) -> None:
    """Gather the direction, orthogonalise it in every process, and apply this process's piece."""
    direction = whole(like(update.parameter, update.direction))
    blocks = wide_blocks(direction, *update.blocks)
    blocks.copy_(torch.bmm(orthogonalizing_factors(torch.bmm(blocks, blocks.mT)), blocks))
    own = direction[place(update.parameter)]
    local(update.parameter).mul_(update.decay_factor).add_(own, alpha=-update.rate)
