"""Tensors that are divided among processes: which part of the whole this process holds (torch's DTensor).

A tensor is cut along one dimension into pieces of equal size, of which the last ones may be smaller or empty, as
``torch.chunk`` cuts. On the other dimension of a mesh of processes each piece is repeated.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor

SHARD, REPLICATE = "shard", "replicate"
"""Names of the dimensions of a mesh: processes that share one copy of the network, and the copies."""


def is_piece(tensor: Tensor) -> bool:
    """Return whether ``tensor`` is divided among processes.

    A run of a single process has none, and does not import the module of their class, which takes most of a second.
    """
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def local(tensor: Tensor) -> Tensor:
    """Return this process's piece of ``tensor``, which shares its memory; ``tensor`` itself if it is not divided."""
    return tensor.to_local() if is_piece(tensor) else tensor  # type: ignore[attr-defined, no-any-return]


def whole(tensor: Tensor) -> Tensor:
    """Return all of ``tensor``. Where it is divided, all processes must call this."""
    return tensor.full_tensor() if is_piece(tensor) else tensor  # type: ignore[attr-defined, no-any-return]


def like(tensor: Any, piece: Tensor) -> Tensor:
    """Return a tensor that is divided as ``tensor`` is, and of which this process holds ``piece``."""
    return type(tensor.data).from_local(  # type: ignore[no-any-return]
        piece,
        tensor.device_mesh,
        tensor.placements,
        run_check=False,
        shape=tensor.shape,
        stride=tensor.stride(),
    )


def shard_mesh(mesh: Any) -> Any:
    """Return the processes of ``mesh`` that share one copy of the network with this one."""
    return mesh[SHARD] if mesh.ndim > 1 else mesh


def cut_dimension(tensor: Any) -> int:
    """Return the dimension along which ``tensor`` is cut."""
    return int(tensor.placements[-1].dim)


def bounds(size: int, count: int, index: int) -> tuple[int, int]:
    """Return where piece ``index`` of ``count`` begins and ends on a side of ``size`` numbers."""
    step = -(-size // count)
    return min(index * step, size), min((index + 1) * step, size)


def place(tensor: Any) -> tuple[slice, ...]:
    """Return where this process's piece is in the whole ``tensor``."""
    mesh, cut = shard_mesh(tensor.device_mesh), cut_dimension(tensor)
    start, stop = bounds(tensor.shape[cut], mesh.size(), mesh.get_local_rank())
    return tuple(
        slice(start, stop) if dim == cut else slice(0, size) for dim, size in enumerate(tensor.shape)
    )


@torch.no_grad()
def fill(tensor: Tensor, values: Tensor) -> None:
    """Copy ``values``, of the shape of the whole, into ``tensor``; into a divided one only this process's piece."""
    if is_piece(tensor):
        local(tensor).copy_(values[place(tensor)])
    else:
        tensor.copy_(values)
