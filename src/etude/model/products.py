"""x W^T + b for one row or a few, at the speed at which the machine reads W.

A new token costs every weight one reading and next to no arithmetic, so the product that is best for training (many
rows) is not the best here. Which one is used is decided once for each weight, by `make_product`. Weights rounded to
bf16 are read in half the time; what else there is stays as wide as it was wherever the product allows.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

_SMALLEST_PACKED = 2**18
"""Weights below this many numbers stay in the processor's cache, and the plain product has less to set up."""


class Product:
    """The plain product: `weight` as it is stored, (O, I)."""

    def __init__(self, weight: Float[Tensor, "O I"], bias: Float[Tensor, " O"] | None) -> None:
        self.weight = weight
        self.transposed = weight.t()
        self.bias = bias

    def __call__(self, x: Float[Tensor, "B I"]) -> Float[Tensor, "B O"]:
        if self.bias is None:
            return torch.mm(x, self.transposed)
        return torch.addmm(self.bias, x, self.transposed)

    def plus(self, x: Float[Tensor, "B I"], residual: Float[Tensor, "B O"]) -> Float[Tensor, "B O"]:
        """residual + x W^T + b."""
        if self.bias is not None:
            residual = residual + self.bias
        return torch.addmm(residual, x, self.transposed)


class PackedProduct(Product):
    """The same from a copy of the weight in oneDNN's own layout: all threads read it in order.

    What `torch.compile` uses for constant weights. PyTorch's plain product of one row is its BLAS's, which on two
    threads reads less than half as fast (`bench/generate.py` shows what that is worth).
    """

    def __init__(self, weight: Float[Tensor, "O I"], bias: Float[Tensor, " O"] | None) -> None:
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight)
        self.bias = bias

    def __call__(self, x: Float[Tensor, "B I"]) -> Float[Tensor, "B O"]:
        return _pointwise(x, self.packed, self.bias, "none", [], "")  # type: ignore[no-any-return]

    def plus(self, x: Float[Tensor, "B I"], residual: Float[Tensor, "B O"]) -> Float[Tensor, "B O"]:
        return _pointwise.binary(x, residual, self.packed, self.bias, "add")  # type: ignore[no-any-return]


class SummedProduct(Product):
    """For `torch.compile` on a CPU: one row times the weight as a plain sum, whose loops read W once and in order.

    They widen a weight in bf16 as they read it: of one row only the weight is rounded.
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
    """A weight in bf16, and `x` rounded to it; what comes out is rounded to bf16 too."""

    def __call__(self, x: Float[Tensor, "B I"]) -> Float[Tensor, "B O"]:
        product = self._multiply(x.to(torch.bfloat16)).to(x.dtype)
        return product if self.bias is None else product + self.bias

    def plus(self, x: Float[Tensor, "B I"], residual: Float[Tensor, "B O"]) -> Float[Tensor, "B O"]:
        return residual + self(x)

    def _multiply(self, x: Tensor) -> Tensor:
        return torch.mm(x, self.transposed)


class PackedRoundedProduct(RoundedProduct):
    """The same in oneDNN's layout."""

    def __init__(self, weight: Float[Tensor, "O I"], bias: Float[Tensor, " O"] | None) -> None:
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight)
        self.bias = bias

    def _multiply(self, x: Tensor) -> Tensor:
        return _pointwise(x, self.packed, None, "none", [], "")  # type: ignore[no-any-return]


def make_product(
    weight: Float[Tensor, "O I"],
    bias: Float[Tensor, " O"] | None,
    *,
    compiled: bool,
    rounded: bool = False,
) -> Product:
    """The fastest product for a few rows, in a graph that is to be compiled or as PyTorch runs it.

    `rounded`: a large weight is kept in bf16. `x` and the result are rounded too, but for a compiled row on a CPU.
    """
    if rounded and weight.numel() >= _SMALLEST_PACKED:
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


_pointwise: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)


def _can_pack(weight: Tensor) -> bool:
    """Not every build of PyTorch has oneDNN, and its operators for packed weights are not part of the public API."""
    if weight.dtype != torch.float32:
        supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
        if weight.dtype != torch.bfloat16 or supported is None or not supported():
            return False
    return (
        torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
        and hasattr(_pointwise, "binary")
    )
