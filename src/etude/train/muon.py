"""Muon: momentum whose direction is orthogonalised before it is applied (Jordan et al. 2024).

For a hidden matrix W of shape (rows, columns) with gradient G::

    M      <- momentum * M + (1 - momentum) * G
    U      =  orthogonalize(momentum * M + (1 - momentum) * G)          (Nesterov)
    W      <- W - lr * weight_decay * W - lr * 0.2 * sqrt(max(rows, columns)) * U

The factor 0.2 * sqrt(max(rows, columns)) gives an update the root mean square that AdamW's has, so that one
learning rate serves both (Liu et al. 2025, "Muon is scalable for LLM training", section 2.2).

The iteration runs in fp32 where the device has no fast bf16 (a CPU), in bf16 on a GPU, and once for all the
matrices of a shape together: many small products in a row cost a CPU more than one batched product.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

NEWTON_SCHULZ_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""The quintic of Jordan et al. 2024: steepest at 0, singular values end within about 0.7 to 1.2."""
NEWTON_SCHULZ_STEPS = 5
RMS_TO_MATCH_ADAMW = 0.2


def orthogonalize(
    matrices: Float[Tensor, "N R C"], steps: int = NEWTON_SCHULZ_STEPS
) -> Float[Tensor, "N R C"]:
    """Each matrix U S V^T moved towards U V^T by the quintic Newton-Schulz iteration, in the given dtype."""
    a, b, c = NEWTON_SCHULZ_COEFFICIENTS
    tall = matrices.size(-2) > matrices.size(-1)
    x = matrices.mT if tall else matrices  # the Gram matrix is then the smaller of the two
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def update_scale(shape: tuple[int, ...]) -> float:
    """The factor that gives an orthogonal (rows, columns) matrix the root mean square of an AdamW update."""
    return RMS_TO_MATCH_ADAMW * math.sqrt(max(shape))


class Muon(torch.optim.Optimizer):
    """Muon over two-dimensional parameters; state: ``momentum_buffer`` of each, in fp32."""

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.dtype = dtype  # of the iteration
        for group in self.param_groups:
            if any(parameter.ndim != 2 for parameter in group["params"]):
                raise ValueError("Muon takes matrices only; give vectors and embeddings to AdamW")

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Apply one update from the parameters' ``grad``."""
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[tuple(parameter.shape)].append(parameter)
            for parameters in by_shape.values():
                self._update_shape(parameters, group)

    def _update_shape(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        buffers = [self._momentum_buffer(parameter) for parameter in parameters]
        torch._foreach_lerp_(buffers, gradients, 1 - group["momentum"])
        directions = torch._foreach_lerp(gradients, buffers, group["momentum"])
        updates = orthogonalize(torch.stack(list(directions)).to(self.dtype)).to(parameters[0].dtype).unbind()
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        scale = group["lr"] * update_scale(tuple(parameters[0].shape))
        torch._foreach_add_(parameters, list(updates), alpha=-scale)

    def _momentum_buffer(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer: Tensor = state["momentum_buffer"]
        return buffer
