"""Muon: momentum whose direction is orthogonalised before it is applied (Jordan et al. 2024).

For a hidden matrix W of shape (rows, columns) with gradient G::

    M      <- momentum * M + (1 - momentum) * G
    U      =  orthogonalize(momentum * M + (1 - momentum) * G)          (Nesterov)
    W      <- W - lr * weight_decay * W - lr * sqrt(max(1, rows / columns)) * U

The factor gives every update the same spectral size relative to the activations it maps, whatever the width: a rate
found on a narrow network serves a wide one (Yang et al. 2023, "A spectral condition for feature learning").

A matrix may be several blocks of rows or of columns (``row_blocks``, ``column_blocks``), each orthogonalised by
itself: the heads of a projection, or groups of an MLP's nodes. They are separate maps, and the products cost a
fraction: those of a whole (R, C) matrix grow with R^2 C.

The orthogonalisation is in newton_schulz.py: in fp32 where the device has no fast bf16 (a CPU), and then on the Gram
matrices of all blocks of a size together; on a GPU in bf16, on the blocks themselves. Tall blocks lie down before it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from etude.train.newton_schulz import orthogonalize, orthogonalizing_factors


def update_scale(rows: int, columns: int, row_blocks: int = 1, column_blocks: int = 1) -> float:
    """The factor of an orthogonal (rows, columns) matrix: an update then moves outputs as much as inputs are large.

    Of a matrix in N blocks it is the factor of each block. With N^-1/2 the blocks could never move an output more than
    the whole would; with 1 they would if they had nothing in common. N^-1/4, between the two, is what moves activations
    alike at every width (the coordinate check in the tests).
    """
    whole = math.sqrt(max(1.0, rows / columns))
    in_blocks = row_blocks * column_blocks * min(rows // row_blocks, columns // column_blocks)
    return (
        whole * math.sqrt(min(rows, columns) / in_blocks) / math.sqrt(math.sqrt(row_blocks * column_blocks))
    )


class Muon(torch.optim.Optimizer):
    """Muon over two-dimensional parameters; state: ``momentum_buffer`` of each, in fp32.

    A parameter group may set ``row_blocks`` or ``column_blocks``: its matrices are then that many matrices, one above
    the other, or side by side.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        defaults |= {"row_blocks": 1, "column_blocks": 1}
        super().__init__(params, defaults)
        self.dtype = dtype  # of the iteration
        for group in self.param_groups:
            if any(parameter.ndim != 2 for parameter in group["params"]):
                raise ValueError("Muon takes matrices only; give vectors and embeddings to AdamW")
            blocks = (group["row_blocks"], group["column_blocks"])
            for parameter in group["params"]:
                if any(size % count for size, count in zip(parameter.shape, blocks, strict=True)):
                    raise ValueError(f"a matrix {tuple(parameter.shape)} does not divide into {blocks}")

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Apply one update from the parameters' ``grad``."""
        updates: list[_Update] = []
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            blocks = (group["row_blocks"], group["column_blocks"])
            for parameter, direction in zip(
                parameters, self._directions(parameters, group["momentum"]), strict=True
            ):
                rate = group["lr"] * update_scale(parameter.shape[0], parameter.shape[1], *blocks)
                kept = 1 - group["lr"] * group["weight_decay"]
                updates.append(
                    _Update(blocks_lying(parameter, *blocks), blocks_lying(direction, *blocks), rate, kept)
                )
        if self.dtype == torch.float32:
            _apply_through_gram_matrices(updates)
        else:
            _apply_directly(updates, self.dtype)

    def _directions(self, parameters: list[Tensor], momentum: float) -> Sequence[Tensor]:
        """Nesterov's: the momentum as it will be after one more step with this gradient."""
        if not parameters:
            return []
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        buffers = [self._momentum_buffer(parameter) for parameter in parameters]
        torch._foreach_lerp_(buffers, gradients, 1 - momentum)
        return torch._foreach_lerp(gradients, buffers, momentum)

    def _momentum_buffer(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer: Tensor = state["momentum_buffer"]
        return buffer


@dataclass(frozen=True, slots=True)
class _Update:
    """weights <- kept * weights - rate * (direction, orthogonalised); blocks that lie, (N, R, C) with R <= C."""

    weights: Tensor
    direction: Tensor
    rate: float
    kept: float


def _apply_through_gram_matrices(updates: Sequence[_Update]) -> None:
    """Large matrices are read twice and written once, where the iteration itself would pass over them 15 times."""
    grams = [torch.bmm(update.direction, update.direction.mT) for update in updates]
    factors = _together(grams, orthogonalizing_factors)
    for update, factor in zip(updates, factors, strict=True):
        update.weights.baddbmm_(factor, update.direction, beta=update.kept, alpha=-update.rate)


def _apply_directly(updates: Sequence[_Update], dtype: torch.dtype) -> None:
    directions = [update.direction.to(dtype) for update in updates]
    for update, orthogonal in zip(updates, _together(directions, orthogonalize), strict=True):
        update.weights.mul_(update.kept).add_(orthogonal, alpha=-update.rate)


def _together(blocks: Sequence[Tensor], function: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """``function`` of each (N, R, C), called once for all blocks of a shape: one product, not many small ones."""
    by_shape: dict[torch.Size, list[int]] = defaultdict(list)
    for place, block in enumerate(blocks):
        by_shape[block.shape[1:]].append(place)
    found = list(blocks)
    for places in by_shape.values():
        results = function(torch.cat([blocks[place] for place in places]))
        parts = torch.split(results, [len(blocks[place]) for place in places])
        for place, part in zip(places, parts, strict=True):
            found[place] = part
    return found


def blocks_lying(matrix: Tensor, row_blocks: int, column_blocks: int) -> Tensor:
    """A view of the blocks of ``matrix`` as (N, R, C) with R <= C: tall ones are turned on their side.

    Either the rows are divided or the columns.
    """
    rows, columns = matrix.shape
    if column_blocks > 1:
        blocks = matrix.view(rows, column_blocks, columns // column_blocks).transpose(0, 1)
    else:
        blocks = matrix.view(row_blocks, rows // row_blocks, columns)
    return blocks.mT if blocks.shape[1] > blocks.shape[2] else blocks
