"""A checksum of all parameters of a network, exact to the bit and independent of threads and devices.

The bits of a matrix are read as 64-bit integers, each of two fp32 numbers. They are summed modulo 2^64 over rows, over
columns, and by position modulo a prime; the sums are hashed. Integer sums do not depend on the order of addition, so
threads, devices and compiled graphs cannot change them. For a large network that takes about two passes over memory, a
tenth of the time of hashing the bytes, and only the sums are copied from a GPU.

It detects with certainty (up to collisions of BLAKE2b): any change within one row of a matrix, so any single bit; any
change within one column of pairs; any change of a vector; two numbers, rows or columns that are exchanged; exchanged
tensors, changed names or shapes. It may miss changes in several rows and columns at once that preserve all three kinds
of sums. Different arithmetic does not produce those, but a forger could: this is not a signature.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from etude.model.pieces import is_piece, local, place, shard_mesh

_PRIME = 251
"""Sums over rows and columns alone miss a sign change in two whole columns (2^63 + 2^63 is 0 modulo 2^64), and +d and
-d at the corners of a rectangle. Positions modulo a prime, which divides no usual width, separate these."""
_ROWS_AT_ONCE = 256
"""Rows of a piece whose places are computed together."""
_WHOLE_NUMBERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Integer type by the bytes of a number."""


@torch.no_grad()
def checksum(model: nn.Module) -> str:
    """Return 128 bits, in hexadecimal, that depend on every bit of the parameters of ``model``, on names and shapes.

    Of a network that is divided among processes, all of them must call this. It returns what a process with a whole
    copy returns: integer sums over pieces may be added in any order.
    """
    digest = hashlib.blake2b(digest_size=16)
    parameters = [(name, parameter.detach()) for name, parameter in model.named_parameters()]
    for name, parameter in parameters:
        digest.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}\n".encode())
    sums: list[Tensor] = []
    if parameters and is_piece(parameters[0][1]):
        sums = _sums_of_pieces([parameter for _, parameter in parameters])
    else:
        for _, parameter in parameters:
            sums.extend(_sums(parameter))
    if sums:
        digest.update(torch.cat(sums).cpu().numpy().astype("<i8", copy=False).tobytes())
    return digest.hexdigest()


def _sums(tensor: Tensor) -> Iterator[Tensor]:
    """Yield the sums of a parameter over rows, columns, and positions modulo the prime."""
    rows = _as_long_numbers(tensor)
    flat = rows.view(-1)
    if len(rows) == 1:  # a vector is short enough to hash it whole
        yield flat
        return
    yield rows.sum(0)
    yield rows.sum(1)
    whole = flat.numel() // _PRIME * _PRIME
    yield flat[:whole].view(-1, _PRIME).sum(0)
    yield flat[whole:]


def _sums_of_pieces(parameters: Sequence[Tensor]) -> list[Tensor]:
    """Return the :func:`_sums` of all parameters, added up over the processes that share a copy, in one message."""
    parts = [part for parameter in parameters for part in _own_sums(parameter)]
    joined = torch.cat(parts)
    first: Any = parameters[0]
    dist.all_reduce(joined, group=shard_mesh(first.device_mesh).get_group())
    totals = iter(torch.split(joined, [len(part) for part in parts]))
    sums: list[Tensor] = []
    for parameter in parameters:
        if parameter.ndim > 1 and len(parameter) > 1:
            sums += [next(totals) for _ in range(4)]
        else:  # its numbers as they are: each process has sent its own, and zeros for the others
            bits = next(totals).to(_WHOLE_NUMBERS[parameter.element_size()])
            sums.append(_as_long_numbers(bits.view(parameter.dtype).view(parameter.shape)).view(-1))
    return sums


def _own_sums(parameter: Tensor) -> Iterator[Tensor]:
    """Yield this process's part of the :func:`_sums` of a parameter, of the size of the whole's; of a vector its bits.

    A cut along the columns must leave even widths, so that no pair of numbers is divided.
    """
    own, where = local(parameter), place(parameter)
    device = own.device
    if parameter.ndim < 2 or len(parameter) == 1:
        bits = torch.zeros(parameter.shape, dtype=torch.int64, device=device)
        bits[where] = own.contiguous().view(_WHOLE_NUMBERS[own.element_size()]).to(torch.int64)
        yield bits.view(-1)
        return
    pairs = 8 // own.element_size() if parameter.shape[1] * own.element_size() % 8 == 0 else 1
    (first_row, _), (first, last) = ((side.start, side.stop) for side in where)
    if (first % pairs or last % pairs) and last > first:
        raise ValueError(f"a piece of columns {first} to {last} divides a pair of numbers")
    height, width, first = parameter.shape[0], parameter.shape[1] // pairs, first // pairs
    bits = own.contiguous().view(_WHOLE_NUMBERS[own.element_size()])
    rows = bits.to(torch.int64) if pairs == 1 else _paired(bits)
    by_column, by_row, by_place, tail = (
        torch.zeros(size, dtype=torch.int64, device=device)
        for size in (width, height, _PRIME, height * width % _PRIME)
    )
    whole = height * width // _PRIME * _PRIME
    by_column[first : first + rows.shape[1]] = rows.sum(0)
    by_row[first_row : first_row + len(rows)] = rows.sum(1)
    columns = torch.arange(first, first + rows.shape[1], device=device)
    for number, row in enumerate(torch.split(rows, _ROWS_AT_ONCE)):
        starts = torch.arange(len(row), device=device) + first_row + number * _ROWS_AT_ONCE
        places = starts[:, None] * width + columns
        early = places < whole
        by_place.index_add_(0, places[early] % _PRIME, row[early])
        tail[places[~early] - whole] = row[~early]
    yield from (by_column, by_row, by_place, tail)


def _paired(bits: Tensor) -> Tensor:
    """View a matrix of 32-bit or smaller integers as 64-bit integers."""
    aligned = bits.storage_offset() * bits.element_size() % 8 == 0
    return (bits if aligned else bits.clone()).view(torch.int64)


def _as_long_numbers(tensor: Tensor) -> Tensor:
    """View a tensor as (rows, columns) of int64, without a copy where the rows are multiples of eight bytes."""
    width = tensor.shape[-1] if tensor.ndim else 1
    rows = tensor.contiguous().view(_WHOLE_NUMBERS[tensor.element_size()]).reshape(-1, width)
    if width * tensor.element_size() % 8:
        return rows.to(torch.int64)
    aligned = rows.storage_offset() * rows.element_size() % 8 == 0
    return (rows if aligned else rows.clone()).view(torch.int64)
