"""Matrix products x W^T + b for few rows, limited by memory bandwidth.

Decoding one token reads every weight once and does little arithmetic, so the best kernel is not that of training (many
rows). `make_product` chooses one for each weight. Weights in bf16 take half the time to read; inputs and sums keep full
precision where the kernel allows it.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from etude.model.stored_matrix import in_memory

_SMALLEST_PACKED = 2**18
"""Smaller weights stay in the processor's cache, and the plain product has less overhead."""


class Product:
    """The plain product, with `weight` (O, I) as it is stored."""

    def __init__(self, weight: Float[Tensor, "O I"], bias: Float[Tensor, " O"] | None) -> None:
        self.weight = weight
        self.transposed = weight.t()
        self.bias = bias

    def __call__(self, x: Float[Tensor, "B I"]) -> Float[Tensor, "B O"]:
        """Return x W^T + b."""
        if self.bias is None:
            return torch.mm(x, self.transposed)
        return torch.addmm(self.bias, x, self.transposed)

    def plus(self, x: Float[Tensor, "B I"], residual: Float[Tensor, "B O"]) -> Float[Tensor, "B O"]:
        """Return residual + x W^T + b."""
        if self.bias is not None:
            residual = residual + self.bias
        return torch.addmm(residual, x, self.transposed)


class PackedProduct(Product):
    """A product with a copy of the weight in oneDNN's layout, which all threads read sequentially.

    `torch.compile` uses it for constant weights. The BLAS behind PyTorch's plain product of one row reads less than
    half as fast on two threads (`bench/generate.py` measures the effect).
    """

    def __init__(self, weight: Float[Tensor, "O I"], bias: Float[Tensor, " O"] | None) -> None:
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight)
        self.bias = bias

    def __call__(self, x: Float[Tensor, "B I"]) -> Float[Tensor, "B O"]:
        return _pointwise(x, self.packed, self.bias, "none", [], "")  # type: ignore[no-any-return]

    def plus(self, x: Float[Tensor, "B I"], residual: Float[Tensor, "B O"]) -> Float[Tensor, "B O"]:
        return _pointwise.binary(x, residual, self.packed, self.bias, "add")  # type: ignore[no-any-return]


class SummedProduct(Product):
    """One row times the weight as a plain sum, for `torch.compile` on a CPU: its loops read W once, sequentially.

    The loops convert a bf16 weight while they read it, so `x` and the sums are not rounded. Several rows use the plain
    product.
    """

    def __call__(self, x: Float[Tensor, "B I"]) -> Float[Tensor, "B O"]:
        if len(x) > 1:
            product = torch.mm(x.to(self.weight.dtype), self.transposed).to(x.dtype)
        else:
            product = (x * self.weight).sum(dim=-1)[None]
        return product if self.bias is None else product + self.bias

    def plus(self, x: Float[Tensor, "B I"], residual: Float[Tensor, "B O"]) -> Float[Tensor, "B O"]:
        return residual + self(x)


class RoundedProduct(Product):
    """A product in bf16: weight, `x` and result are rounded to it."""

    def __call__(self, x: Float[Tensor, "B I"]) -> Float[Tensor, "B O"]:
        product = self._multiply(x.to(torch.bfloat16)).to(x.dtype)
        return product if self.bias is None else product + self.bias

    def plus(self, x: Float[Tensor, "B I"], residual: Float[Tensor, "B O"]) -> Float[Tensor, "B O"]:
        return residual + self(x)

    def _multiply(self, x: Tensor) -> Tensor:
        return torch.mm(x, self.transposed)


class PackedRoundedProduct(RoundedProduct):
    """A product in bf16 with the weight in oneDNN's layout."""

    def __init__(self, weight: Float[Tensor, "O I"], bias: Float[Tensor, " O"] | None) -> None:
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight)
        self.bias = bias

    def _multiply(self, x: Tensor) -> Tensor:
        return _pointwise(x, self.packed, None, "none", [], "")  # type: ignore[no-any-return]


class HalfProduct(Product):
    """A product with a weight of two bytes per number; `x`, the sums and the result are fp32.

    FBGEMM stores the weight as fp16, in which every number of a weight rounded to bf16 is exact from 6e-5 on (smaller
    ones to 3e-8), and converts it while it reads it.
    """

    def __init__(self, weight: Float[Tensor, "O I"], bias: Float[Tensor, " O"] | None) -> None:
        rounded = weight.detach().to(torch.bfloat16).float()
        self.packed = torch.ops.quantized.linear_prepack_fp16(rounded, bias)

    def __call__(self, x: Float[Tensor, "B I"]) -> Float[Tensor, "B O"]:
        return torch.ops.quantized.linear_dynamic_fp16(x, self.packed)  # type: ignore[no-any-return]

    def plus(self, x: Float[Tensor, "B I"], residual: Float[Tensor, "B O"]) -> Float[Tensor, "B O"]:
        return residual + self(x)


def make_product(
    weight: Float[Tensor, "O I"],
    bias: Float[Tensor, " O"] | None,
    *,
    compiled: bool,
    rounded: bool = False,
) -> Product:
    """Choose the fastest product for few rows, in a graph to be compiled or in eager mode.

    `rounded`: round a large weight to bf16. Then `x` and the result are rounded as well, unless
    :func:`rounds_weights_only`.
    """
    weight = in_memory(weight)
    if rounded and weight.numel() >= _SMALLEST_PACKED:
        if not compiled and _can_halve(weight):
            return HalfProduct(weight, bias)
        weight = weight.to(torch.bfloat16)
        if weight.device.type == "cpu" and compiled:
            return SummedProduct(weight, bias)
        packed = weight.device.type == "cpu" and _can_pack(weight)
        return (PackedRoundedProduct if packed else RoundedProduct)(weight, bias)
    if weight.device.type == "cpu":
        if compiled:
            return SummedProduct(weight, bias)
        if weight.numel() >= _SMALLEST_PACKED and weight.dtype == torch.float32 and _can_pack(weight):
            return PackedProduct(weight, bias)
    return Product(weight, bias)


def rounds_weights_only(weight: Tensor, *, compiled: bool) -> bool:
    """Return whether the rounded product of a single row rounds the weight, but neither `x` nor the result."""
    return weight.device.type == "cpu" and (compiled or _can_halve(weight))


def _can_halve(weight: Tensor) -> bool:
    """Return whether this build of PyTorch has FBGEMM's product of fp32 rows with an fp16 weight."""
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and "fbgemm" in torch.backends.quantized.supported_engines
        and hasattr(torch.ops.quantized, "linear_dynamic_fp16")
    )


_pointwise: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)


def _can_pack(weight: Tensor) -> bool:
    """Return whether this build of PyTorch has oneDNN's operators for packed weights, which are not a public API."""
    if weight.dtype != torch.float32:
        supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
        if weight.dtype != torch.bfloat16 or supported is None or not supported():
            return False
    return (
        torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
        and hasattr(_pointwise, "binary")
    )
