"""Operations that devices are known to compute wrongly without an error, each compared with float64 on the CPU.

Each was a real fault of a released backend, mostly of PyTorch's for Apple GPUs; the comment names the issue. The faults
depend on the layout or size of the operands, so a step of a small network alone would not meet them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from etude.device import Device
from etude.diagnose.machine.step_by_definition import causal_attention
from etude.model.attention import CAUSAL, attend, document_positions
from etude.model.dropout import keep_masks

EXACT = 0.0
FP32 = 2e-5
"""Tolerance of a sum of some hundred products; each rounds by 6e-8. Measured: 3e-6."""
BF16 = 6e-2
"""bf16 has 8 bits: each number rounds by up to 0.4 %. Measured, the worst of thousands of numbers: 2e-2."""
BF16_IN_BLOCKS = 1e-1
"""Tolerance of attention on a CPU, which also rounds the scores before the softmax. Measured likewise: 3.4e-2."""


@dataclass(frozen=True)
class Operation:
    """An operation and its expected result; ``tolerance`` is relative to the size of that."""

    name: str
    run: Callable[[Device], Tensor]
    expected: Callable[[], Tensor]
    tolerance: float = FP32


def operations(device: Device) -> tuple[Operation, ...]:
    """Return the operations to try on ``device``; products and attention run in its dtype."""
    rounded, in_blocks = (BF16, BF16_IN_BLOCKS) if device.dtype == "bf16" else (FP32, FP32)
    return (
        Operation("product of large matrices", _product, _product_expected, rounded),
        Operation("linear with transposed weight", _linear, _linear_expected, rounded),
        Operation("causal attention", _causal, _causal_expected, rounded),
        Operation("attention as the network computes it", _attention, _causal_expected, in_blocks),
        Operation("attention of one query", _one_query, _one_query_expected, rounded),
        Operation("transposed addcmul_", _addcmul, _addcmul_expected),
        Operation("transposed addcdiv_", _addcdiv, _addcdiv_expected),
        Operation("lerp_ into a slice", _lerp, _lerp_expected),
        Operation("sum over repeated indices", _scatter, _scatter_expected),
        Operation("copy of a strided slice", _copy, _copy_expected, EXACT),
        Operation("argmax of large integers", _argmax, _argmax_expected, EXACT),
        Operation("positions within documents", _positions, _positions_expected, EXACT),
        Operation("dropout mask", _dropout, _dropout_expected, EXACT),
    )


def _normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _operands(count: int, *shape: int) -> Iterator[Tensor]:
    return (_normal(*shape, seed=seed) for seed in range(count))


def _product(device: Device) -> Tensor:
    left, right = (x.to(device.torch) for x in _operands(2, 320, 320))
    with device.autocast():
        return left @ right


def _product_expected() -> Tensor:
    left, right = _operands(2, 320, 320)
    return left.double() @ right.double()


def _linear(device: Device) -> Tensor:
    # pytorch/pytorch 162779: a non-contiguous weight was read as if it were contiguous.
    x, weight = _normal(40, 48, seed=0).to(device.torch), _normal(48, 72, seed=1).to(device.torch)
    with device.autocast():
        return F.linear(x, weight.T)


def _linear_expected() -> Tensor:
    return _normal(40, 48, seed=0).double() @ _normal(48, 72, seed=1).double()


def _causal(device: Device) -> Tensor:
    # pytorch/pytorch 195910: in bf16 three of four positions saw later tokens.
    queries, keys, values = _rounded(device, *_operands(3, 1, 2, 64, 64))
    return F.scaled_dot_product_attention(queries, keys, values, is_causal=True)


def _attention(device: Device) -> Tensor:
    queries, keys, values = _rounded(device, *_operands(3, 1, 2, 64, 64))
    return attend(queries, keys, values, CAUSAL)


def _causal_expected() -> Tensor:
    return causal_attention(*(x.double() for x in _operands(3, 1, 2, 64, 64)))


def _one_query(device: Device) -> Tensor:
    # pytorch/pytorch 174861: a kernel for one query and many keys read out of bounds.
    query, keys, values = _rounded(device, *_query_keys_values())
    return F.scaled_dot_product_attention(query, keys, values, enable_gqa=True)


def _one_query_expected() -> Tensor:
    query, keys, values = (x.double() for x in _query_keys_values())
    return causal_attention(query, keys.repeat_interleave(4, 1), values.repeat_interleave(4, 1))


def _query_keys_values() -> tuple[Tensor, Tensor, Tensor]:
    return (
        _normal(1, 8, 1, 64, seed=0),
        _normal(1, 2, 1100, 64, seed=1),
        _normal(1, 2, 1100, 64, seed=2),
    )


def _rounded(device: Device, *tensors: Tensor) -> Iterator[Tensor]:
    """Move tensors to the device, in the dtype that a layer's projections return."""
    dtype = torch.bfloat16 if device.dtype == "bf16" else torch.float32
    return (x.to(device.torch, dtype) for x in tensors)


def _addcmul(device: Device) -> Tensor:
    # pytorch/pytorch 118115: transposed weights of an encoder never changed.
    target, left, right = (x.to(device.torch) for x in _operands(3, 24, 40))
    target = target.T.contiguous().T
    return target.addcmul_(left, right, value=0.5)


def _addcmul_expected() -> Tensor:
    target, left, right = (x.double() for x in _operands(3, 24, 40))
    return target + 0.5 * left * right


def _addcdiv(device: Device) -> Tensor:
    target, left, right = (x.to(device.torch) for x in _operands(3, 24, 40))
    target = target.T.contiguous().T
    return target.addcdiv_(left, right.abs() + 1, value=-0.5)


def _addcdiv_expected() -> Tensor:
    target, left, right = (x.double() for x in _operands(3, 24, 40))
    return target - 0.5 * left / (right.abs() + 1)


def _lerp(device: Device) -> Tensor:
    target, end = (x.to(device.torch) for x in _operands(2, 24, 40))
    target[1::2, :33].lerp_(end[::2, 7:], 0.3)
    return target


def _lerp_expected() -> Tensor:
    target, end = (x.double() for x in _operands(2, 24, 40))
    target[1::2, :33] = 0.7 * target[1::2, :33] + 0.3 * end[::2, 7:]
    return target


def _scatter(device: Device) -> Tensor:
    rows = _normal(600, 16, seed=0).to(device.torch)
    index = torch.arange(600, device=device.torch) ** 2 % 7
    return torch.zeros(7, 16, device=device.torch).index_add_(0, index, rows)


def _scatter_expected() -> Tensor:
    total = torch.zeros(7, 16, dtype=torch.float64)
    for place, row in enumerate(_normal(600, 16, seed=0).double()):
        total[place**2 % 7] += row
    return total


def _copy(device: Device) -> Tensor:
    whole = _normal(30, 50, seed=0)
    target = torch.zeros(50, 30, device=device.torch)
    target[5:, ::2].copy_(whole.T[5:, ::2])
    return target


def _copy_expected() -> Tensor:
    whole = _normal(30, 50, seed=0).T.clone()
    whole[:5] = 0
    whole[:, 1::2] = 0
    return whole


_LARGE = 2**26
"""fp32 cannot distinguish neighbouring integers from 2^24 on."""


def _argmax(device: Device) -> Tensor:
    values = torch.arange(999, device=device.torch) * 5 % 999 + _LARGE
    return torch.stack((values.argmax(), values.argmin()))


def _argmax_expected() -> Tensor:
    values = [number * 5 % 999 for number in range(999)]
    return torch.tensor([values.index(998), values.index(0)])


_DOCUMENT_LENGTHS = (5, 1, 700, 94)


def _positions(device: Device) -> Tensor:
    ids = [number for number, length in enumerate(_DOCUMENT_LENGTHS) for _ in range(length)]
    return document_positions(torch.tensor([ids, ids[::-1]]).to(device.torch))


def _positions_expected() -> Tensor:
    forth, back = (
        [place for length in lengths for place in range(length)]
        for lengths in (_DOCUMENT_LENGTHS, _DOCUMENT_LENGTHS[::-1])
    )
    return torch.tensor([forth, back])


_DROPOUT = (0.3, 12345, 2, (3, 2, 5, 7))


def _dropout(device: Device) -> Tensor:
    return keep_masks(*_DROPOUT, device.torch).int()


def _dropout_expected() -> Tensor:
    """Return the mask by MurmurHash3's finalizer in Python integers, as etude.model.dropout defines it."""
    probability, seed, first_row, (places, rows, context, width) = _DROPOUT
    words = -(-context * width // 4)
    below = round(probability * 256)
    keep_mask = []
    for place in range(places):
        salt = _mixed(_mixed(seed) + place)
        for row in range(first_row, first_row + rows):
            drawn = [_mixed(_mixed(row * words + word) ^ salt) for word in range(words)]
            levels = [word >> shift & 0xFF for word in drawn for shift in (0, 8, 16, 24)]
            keep_mask += [int(level >= below) for level in levels[: context * width]]
    return torch.tensor(keep_mask).view(places, rows, context, width)


def _mixed(word: int) -> int:
    word &= 0xFFFFFFFF
    word = (word ^ word >> 16) * 0x85EBCA6B & 0xFFFFFFFF
    word = (word ^ word >> 13) * 0xC2B2AE35 & 0xFFFFFFFF
    return word ^ word >> 16
