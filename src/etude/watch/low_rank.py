"""One number of an adapted matrix in a step: the frozen weight, the two factors, their product, and the sum of both.

The matrix that a layer computes with is W + scale * B A (:mod:`etude.model.lora`). So its number at (i, j) is W[i, j]
plus scale times row i of B times column j of A. Sums are in float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from etude.model.adapter import adapted_matrices
from etude.model.config import ModelConfig


@dataclass(frozen=True)
class LowRank:
    """The low-rank part of one number of an adapted matrix, before and after a step.

    Attributes:
        up_name, down_name: the parameters B and A.
        up, down: (R,) row of B and column of A before the step.
        up_after, down_after: after it.
        scale: factor of their product.
        base: the frozen weight.
        gradient: of the loss by the frozen weight, to which it was not applied. Without dropout in the branch it is
            that by the sum as well.
    """

    up_name: str
    down_name: str
    up: Float[Tensor, " R"]
    down: Float[Tensor, " R"]
    up_after: Float[Tensor, " R"]
    down_after: Float[Tensor, " R"]
    scale: float
    base: float
    gradient: float

    @property
    def product(self) -> float:
        """What the factors add to the weight before the step."""
        return self.scale * float(self.up @ self.down)

    @property
    def product_after(self) -> float:
        """What they add after it."""
        return self.scale * float(self.up_after @ self.down_after)

    @property
    def share(self) -> float:
        """The size of the product over the sizes of product and frozen weight together, before the step."""
        size = abs(self.product) + abs(self.base)
        return abs(self.product) / size if size else 0.0

    @property
    def lines(self) -> list[str]:
        """The sum as text."""
        terms = " ".join(
            f"{up:+.4g}*{down:+.4g}" for up, down in zip(self.up.tolist(), self.down.tolist(), strict=True)
        )
        sums = self.base + self.product, self.base + self.product_after
        return [
            f"gradient    {self.gradient:+.9g}, not applied, for the weight itself is frozen",
            f"frozen      {self.base:+.9g}",
            f"factors     row of {self.up_name} times column of {self.down_name}: {terms}",
            f"product     {self.scale:.6g} * {float(self.up @ self.down):+.9g} = {self.product:+.9g}, "
            f"{self.share:.2%} of the sizes of both",
            f"sum         {sums[0]:+.9g} before the step, {sums[1]:+.9g} after it: {sums[1] - sums[0]:+.4g}",
        ]


def low_rank_part(
    config: ModelConfig,
    name: str,
    index: tuple[int, ...],
    before: Mapping[str, Tensor],
    after: Mapping[str, Tensor],
    gradient: float,
) -> LowRank | None:
    """Return the low-rank part of the number at ``index`` of the parameter ``name``; None if it is not adapted.

    ``before`` and ``after`` are the weights of the step.
    """
    path, _, leaf = name.rpartition(".")
    owners = {part: matrix.parts[0] for matrix in adapted_matrices(config) for part in matrix.parts}
    if leaf != "weight" or path not in owners or config.adapter is None:
        return None
    up, down = f"{path}.lora_B", f"{owners[path]}.lora_A"
    row, column = index

    def factors(weights: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        return weights[up][row].to("cpu", torch.float64), weights[down][:, column].to("cpu", torch.float64)

    base = float(before[name][index])
    return LowRank(up, down, *factors(before), *factors(after), config.adapter.scale, base, gradient)
