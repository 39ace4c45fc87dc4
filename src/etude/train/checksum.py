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
from collections.abc import Iterator

import torch
from torch import Tensor, nn

_PRIME = 251
"""Sums over rows and columns alone miss a sign change in two whole columns (2^63 + 2^63 is 0 modulo 2^64), and +d and
-d at the corners of a rectangle. Positions modulo a prime, which divides no usual width, separate these."""
_WHOLE_NUMBERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Integer type by the bytes of a number."""


@torch.no_grad()
def checksum(model: nn.Module) -> str:
    """Return 128 bits, in hexadecimal, that depend on every bit of the parameters of ``model``, on names and shapes."""
    digest = hashlib.blake2b(digest_size=16)
    sums: list[Tensor] = []
    for name, parameter in model.named_parameters():
        digest.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}\n".encode())
        sums.extend(_sums(parameter.detach()))
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


def _as_long_numbers(tensor: Tensor) -> Tensor:
    """View a tensor as (rows, columns) of int64, without a copy where the rows are multiples of eight bytes."""
    width = tensor.shape[-1] if tensor.ndim else 1
    rows = tensor.contiguous().view(_WHOLE_NUMBERS[tensor.element_size()]).reshape(-1, width)
    if width * tensor.element_size() % 8:
        return rows.to(torch.int64)
    aligned = rows.storage_offset() * rows.element_size() % 8 == 0
    return (rows if aligned else rows.clone()).view(torch.int64)
