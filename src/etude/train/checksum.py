"""A short name for all parameters of a network, to the bit: the same bits have the same one.

The bits of a matrix are read as whole numbers of 64 bits, two of its fp32 numbers each. These are added up modulo 2^64
by rows, by columns, and by their place modulo a prime; the sums are hashed. Whole numbers have one sum in whatever
order they are added, so threads, devices and graphs cannot matter. Of a large network it takes about two passes over
memory, a tenth of what hashing the bytes takes, and from a GPU only the sums come over.

What is found for certain (as far as BLAKE2b can be relied on): any change inside one row of a matrix, so any single
bit; any within one column of pairs; anything in a vector; two numbers, rows or columns that changed places; tensors
that changed places, names or shapes. What is not: changes of several rows and columns at once that leave all three
kinds of sums as they were. Arithmetic that went another way does not come to that; a forger could, so this is no
signature.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

_PRIME = 251
"""Rows and columns alone would miss a sign that changed in two whole columns (2^63 + 2^63 is nothing modulo 2^64), and
+d and -d at the corners of a rectangle. In places that no width is a multiple of, these fall apart."""
_WHOLE_NUMBERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""By bytes of a parameter's number."""


@torch.no_grad()
def checksum(model: nn.Module) -> str:
    """128 bits in hexadecimal that depend on every bit of the parameters of ``model``, their names and shapes."""
    digest = hashlib.blake2b(digest_size=16)
    sums: list[Tensor] = []
    for name, parameter in model.named_parameters():
        digest.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}\n".encode())
        sums.extend(_sums(parameter.detach()))
    if sums:
        digest.update(torch.cat(sums).cpu().numpy().astype("<i8", copy=False).tobytes())
    return digest.hexdigest()


def _sums(tensor: Tensor) -> Iterator[Tensor]:
    rows = _as_long_numbers(tensor)
    flat = rows.view(-1)
    if len(rows) == 1:  # a vector is short enough to be taken as it is
        yield flat
        return
    yield rows.sum(0)
    yield rows.sum(1)
    whole = flat.numel() // _PRIME * _PRIME
    yield flat[:whole].view(-1, _PRIME).sum(0)
    yield flat[whole:]


def _as_long_numbers(tensor: Tensor) -> Tensor:
    """(rows, columns) int64, which shares the memory of ``tensor`` wherever a row is a multiple of eight bytes."""
    width = tensor.shape[-1] if tensor.ndim else 1
    rows = tensor.contiguous().view(_WHOLE_NUMBERS[tensor.element_size()]).reshape(-1, width)
    if width * tensor.element_size() % 8:
        return rows.to(torch.int64)
    aligned = rows.storage_offset() * rows.element_size() % 8 == 0
    return (rows if aligned else rows.clone()).view(torch.int64)
