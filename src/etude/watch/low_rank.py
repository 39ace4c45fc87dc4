"""An adapted matrix in a step, and one number of it: the frozen weight, the two factors, and their product.

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
from etude.watch.tuned_types import AdaptedMatrixAnswer


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
    found = factor_names(config).get(name)
    if found is None or config.adapter is None:
        return None
    up, down = found
    row, column = index

    def factors(weights: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        return weights[up][row].to("cpu", torch.float64), weights[down][:, column].to("cpu", torch.float64)

    base = float(before[name][index])
    return LowRank(up, down, *factors(before), *factors(after), config.adapter.scale, base, gradient)


def factor_names(config: ModelConfig) -> dict[str, tuple[str, str]]:
    """Return the names of the factors (B, A) of each adapted matrix, by that of its frozen parameter."""
    return {
        f"{part}.weight": (f"{part}.lora_B", f"{matrix.parts[0]}.lora_A")
        for matrix in adapted_matrices(config)
        for part in matrix.parts
    }


def product_of(config: ModelConfig, name: str, weights: Mapping[str, Tensor]) -> Float[Tensor, "O I"] | None:
    """Return scale * B A of the parameter ``name``; None if it is not adapted."""
    found = factor_names(config).get(name)
    if found is None or config.adapter is None:
        return None
    up, down = (weights[factor].detach().cpu() for factor in found)
    return (up @ down) * config.adapter.scale


def adapted_norms(
    config: ModelConfig,
    before: Mapping[str, Tensor],
    after: Mapping[str, Tensor],
    gradients: Mapping[str, Tensor],
) -> list[AdaptedMatrixAnswer]:
    """Return the lengths of the parts of every adapted matrix in a step; none without an adapter."""
    if config.adapter is None:
        return []
    answers: list[AdaptedMatrixAnswer] = []
    for name, (up, down) in factor_names(config).items():
        old, new = (
            [side[factor].detach().cpu().double() for factor in (up, down)] for side in (before, after)
        )
        length = config.adapter.scale * _product_norm(*old)
        # The change is a product as well: of [B after, -B before] and [A after; A before].
        change = _product_norm(torch.cat([new[0], -old[0]], dim=1), torch.cat([new[1], old[1]]))
        weight = float(before[name].norm())
        answers.append(
            {
                "name": name,
                "shape": list(before[name].shape),
                "up_name": up,
                "down_name": down,
                "rank": config.adapter.rank,
                "scale": config.adapter.scale,
                "weight_norm": weight,
                "grad_norm": float(gradients[name].norm()),
                "product_norm": length,
                "share": length / weight if weight else None,
                "moved": config.adapter.scale * change,
            }
        )
    return answers


def _product_norm(up: Float[Tensor, "O R"], down: Float[Tensor, "R I"]) -> float:
    """Return the length of B A from the products of their rows and columns, which are small: sqrt(tr(B'B AA'))."""
    return float(((up.T @ up) * (down @ down.T)).sum().clamp(min=0).sqrt())
