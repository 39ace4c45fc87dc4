"""Matrices in blocks: views of their blocks, and one call for all blocks of a shape."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def by_shape(blocks: Sequence[Tensor], function: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """Apply ``function`` to each (N, R, C), in one call for all blocks of a shape instead of many small products."""
    places_of: dict[torch.Size, list[int]] = defaultdict(list)
    for place, block in enumerate(blocks):
        places_of[block.shape[1:]].append(place)
    applied = list(blocks)
    for places in places_of.values():
        results = function(torch.cat([blocks[place] for place in places]))
        parts = torch.split(results, [len(blocks[place]) for place in places])
        for place, part in zip(places, parts, strict=True):
            applied[place] = part
    return applied


def wide_blocks(matrix: Tensor, row_blocks: int, column_blocks: int) -> Tensor:
    """View the blocks of ``matrix`` as (N, R, C) with R <= C, transposed where they have more rows than columns.

    Either the rows are divided or the columns, not both.
    """
    rows, columns = matrix.shape
    if column_blocks > 1:
        blocks = matrix.view(rows, column_blocks, columns // column_blocks).transpose(0, 1)
    else:
        blocks = matrix.view(row_blocks, rows // row_blocks, columns)
    return blocks.mT if blocks.shape[1] > blocks.shape[2] else blocks  # the Gram matrices are then R by R
