"""A rank's pieces of the training state, and their way to the ranks that write them: whole tensors, each to one owner.

The pieces are copied at a step. A background thread then sends them to their owners and writes them, while training
continues, over a process group of its own: on the one that trains, its messages would mix with those of the steps.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from etude.model.pieces import REPLICATE, bounds, cut_dimension, is_piece, local, shard_mesh
from etude.train.checkpoint import COUNTERS
from etude.train.loop import TrainState

_LAYER = re.compile(r"model\.layers\.\d+\.")


@dataclass(frozen=True)
class Piece:
    """A rank's piece of a tensor, on the CPU. cut: the dimension that is divided; None: the rank has all of it."""

    own: Tensor
    shape: tuple[int, ...]
    cut: int | None

    @classmethod
    def of(cls, tensor: Tensor, *, copy: bool) -> Piece:
        """Return a rank's piece of ``tensor``: a copy, or its own memory where that is on the CPU."""
        own = local(tensor.detach()).to("cpu", copy=copy)
        return cls(own, tuple(tensor.shape), cut_dimension(tensor) if is_piece(tensor) else None)

    @property
    def num_bytes(self) -> int:
        """Bytes of the whole tensor."""
        return torch.Size(self.shape).numel() * self.own.element_size()

    def bounds(self, count: int, index: int) -> tuple[int, int]:
        """Return where the piece of a rank begins and ends."""
        assert self.cut is not None
        return bounds(self.shape[self.cut], count, index)


@dataclass(frozen=True)
class PiecesSnapshot:
    """A copy of a rank's pieces of the training state, in main memory."""

    step: int
    counters: dict[str, Any]
    weights: dict[str, Piece]
    optimizer: dict[str, Piece]

    @classmethod
    def of(cls, state: TrainState, *, copy: bool = True) -> PiecesSnapshot:
        """Copy the pieces of ``state``; without ``copy`` hold its own tensors, which the next step changes."""
        counters = {key: getattr(state, attribute) for key, attribute in COUNTERS.items()}
        weights = {name: Piece.of(parameter, copy=copy) for name, parameter in state.model.named_parameters()}
        optimizer = {name: Piece.of(tensor, copy=copy) for name, tensor in state.rules.named_state().items()}
        return cls(state.step, counters, weights, optimizer)

    @property
    def num_bytes(self) -> int:
        """Bytes of the whole state on disk."""
        return sum(piece.num_bytes for piece in (*self.weights.values(), *self.optimizer.values()))


@dataclass(frozen=True)
class Writers:
    """The ranks that write a checkpoint together. Its methods are collectives.

    Attributes:
        group: a process group for checkpoints alone, of the CPU.
        rank: of this process in the run.
        count: ranks that share one copy.
        index: of this process among them.
        holds: whether this process belongs to the first copy, the one that is written.
    """

    group: Any
    rank: int
    count: int
    index: int
    holds: bool

    @classmethod
    def of(cls, mesh: Any, rank: int) -> Writers:
        """Make the group. All ranks must call this at the same time."""
        shards = shard_mesh(mesh)
        replica = mesh.get_local_rank(REPLICATE) if mesh.ndim > 1 else 0
        group = dist.new_group(backend="gloo")
        return cls(group, rank, shards.size(), shards.get_local_rank(), replica == 0)

    def gathered(self, pieces: Mapping[str, Piece], owners: Mapping[str, int]) -> dict[str, Tensor]:
        """Return the whole tensors of which this rank is the owner; ``owners`` has the index of each tensor's."""
        if not self.holds:
            return {}
        own: dict[str, Tensor] = {}
        for name, piece in pieces.items():
            whole = self._gather(piece, owners[name])
            if whole is not None:
                own[name] = whole
        return own

    def _gather(self, piece: Piece, owner: int) -> Tensor | None:
        """Send the pieces of one tensor to its owner, which returns the whole; the others return None."""
        if piece.cut is None:
            return piece.own if self.index == owner else None
        if self.index != owner:
            if piece.own.numel():
                dist.send(piece.own.contiguous(), dst=owner, group=self.group)
            return None
        whole = torch.empty(piece.shape, dtype=piece.own.dtype)
        for index in range(self.count):
            start, stop = piece.bounds(self.count, index)
            part = whole.narrow(piece.cut, start, stop - start)
            if index == owner:
                part.copy_(piece.own)
            elif part.numel():
                received = torch.empty(part.shape, dtype=part.dtype)
                dist.recv(received, src=index, group=self.group)
                part.copy_(received)
        return whole

    def send(self, value: Any) -> Any:
        """Return the ``value`` of rank 0 on all ranks."""
        sent = [value]
        dist.broadcast_object_list(sent, src=0, group=self.group, device=torch.device("cpu"))
        return sent[0]

    def collect(self, value: Any) -> list[Any]:
        """Return the values of all ranks on rank 0; nothing on the others."""
        received: list[Any] | None = [None] * dist.get_world_size(self.group) if self.rank == 0 else None
        dist.gather_object(value, received, dst=0, group=self.group)
        return received or []


def unit(name: str) -> str:
    """Return what is saved together with a tensor: its layer, whose saved format may join several; else its name."""
    layer = _LAYER.match(name)
    return layer[0] if layer else name


def owners(pieces: Mapping[str, Piece], count: int, loads: Sequence[int] = ()) -> dict[str, int]:
    """Return the index of the rank that writes each tensor: the largest unit first, to the rank with the least bytes.

    ``loads``: the bytes that each rank has to write already.
    """
    sizes: dict[str, int] = {}
    for name, piece in pieces.items():
        sizes[unit(name)] = sizes.get(unit(name), 0) + piece.num_bytes
    totals, chosen = list(loads) or [0] * count, dict[str, int]()
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        least = min(range(count), key=lambda index: totals[index])
        totals[least] += sizes[name]
        chosen[name] = least
    return {name: chosen[unit(name)] for name in pieces}


def loads(pieces: Mapping[str, Piece], owned: Mapping[str, int], count: int) -> list[int]:
    """Return the bytes that each rank writes."""
    totals = [0] * count
    for name, piece in pieces.items():
        totals[owned[name]] += piece.num_bytes
    return totals


def units(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the names of each :func:`unit`, in their order."""
    members: dict[str, list[str]] = {}
    for name in names:
        members.setdefault(unit(name), []).append(name)
    return members
