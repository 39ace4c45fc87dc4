"""AdamW: Adam with decoupled weight decay (Kingma and Ba 2015; Loshchilov and Hutter 2019).

For a parameter w with gradient g at its update t::

    m <- beta1 * m + (1 - beta1) * g
    v <- beta2 * v + (1 - beta2) * g^2
    direction = (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

Training uses PyTorch's optimizer, as one fused kernel where the device has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from etude.config import ResolvedTrain
from etude.device import Device
from etude.model.config import ModelConfig
from etude.train.rules.contract import (
    ROLES,
    Definition,
    Explanation,
    Hyperparameters,
    Parameter,
    Rate,
    Tolerances,
    UpdateRule,
    rate_at_width,
    weight_decay_of,
)
from etude.train.rules.terms import DIRECTION, NumberUpdate, constant, sqrt

M, V, STEP = "exp_avg", "exp_avg_sq", "step"
"""Names of the state's leaves, which are PyTorch's."""


class AdamWRule(UpdateRule):
    """AdamW, for every parameter. All its updates have the same size, so the rate of matrices falls with the width."""

    name = "adamw"
    title = "AdamW"
    summary = ""
    moves = ROLES
    rates: ClassVar = {"train.lr": Rate(0.02, "swept; scaled with the width, so that it holds at any width")}
    tolerances = Tolerances(
        update=1e-3, device={"fp32": 5e-4, "bf16": 0.1}, device_scale={"fp32": 2e-5, "bf16": 0.01}
    )

    def options(self, parameter: Parameter, settings: ResolvedTrain, config: ModelConfig) -> dict[str, Any]:
        return {
            "lr": rate_at_width(parameter, settings, config),
            "weight_decay": weight_decay_of(parameter, settings),
            "betas": settings.betas,
            "eps": settings.eps,
        }

    def optimizer(
        self, groups: Sequence[dict[str, Any]], settings: ResolvedTrain, device: Device
    ) -> torch.optim.Optimizer:
        return torch.optim.AdamW(list(groups), fused=device.kind in ("cpu", "cuda"))

    def hyperparameters(self, options: Mapping[str, Any], shape: Sequence[int]) -> Hyperparameters:
        return Hyperparameters(
            self.name, options["lr"], options["weight_decay"], options["betas"], options["eps"]
        )

    def state_shapes(self, shape: Sequence[int]) -> dict[str, tuple[int, ...]]:
        return {M: tuple(shape), V: tuple(shape), STEP: ()}

    def definition(self, gradient: Tensor, state: Mapping[str, Tensor], used: Hyperparameters) -> Definition:
        first, second = used.betas
        count = float(state[STEP]) + 1
        mean = torch.lerp(state[M], gradient, 1 - first)
        square = torch.lerp(state[V], gradient**2, 1 - second)
        spread = (square / (1 - second**count)).sqrt() + used.eps
        direction = mean / (1 - first**count) / spread
        after = {M: mean, V: square, STEP: torch.tensor(count, dtype=torch.float64)}
        return Definition(used.lr * direction, after)

    def terms(self, number: NumberUpdate) -> None:
        first, second = number.used.betas
        count, g = number.count_before(STEP) + 1, number.gradient
        m = number.term("m", "m, the mean of gradients", first * number.before(M) + (1 - first) * g, leaf=M)
        v = number.term(
            "v", "v, the mean of their squares", second * number.before(V) + (1 - second) * g**2, leaf=V
        )
        m_hat = number.term("m_hat", "m̂, for m began at zero", m / (1 - constant(first) ** count))
        v_hat = number.term("v_hat", "v̂, likewise", v / (1 - constant(second) ** count))
        number.term(DIRECTION, "direction, m̂ ÷ (√v̂ + ε)", m_hat / (sqrt(v_hat) + number.used.eps))

    explanation = Explanation(
        picture=(
            "Every weight keeps a diary of what it was asked for: which way on average, and how loudly. It moves "
            "the way it was usually asked to, and divides by the loudness, so that a weight which is always shouted "
            "at moves no further than one which is whispered to."
        ),
        stops="The diary holds two numbers only, and old entries fade with every step.",
        words=(
            "AdamW keeps two memories for each weight: the mean of its latest gradients, and the mean of their "
            "squares. It divides the first by the root of the second, so that loud and quiet weights move alike. "
            "Both memories begin at zero, and both are corrected for it. So the size of a move is about the "
            "learning rate, whatever the size of the gradient."
        ),
        formulas=(
            "m ← β₁ m + (1 - β₁) g",
            "v ← β₂ v + (1 - β₂) g²",
            "m̂ = m / (1 - β₁ᵗ)",
            "v̂ = v / (1 - β₂ᵗ)",
            "w ← w - η λ w - η m̂ / (√v̂ + ε)",
        ),
        symbols=(
            "g: gradient, clipped. m, v: the two memories (with a hat: corrected for having begun at zero). t: "
            "updates so far. η: learning rate. λ: weight decay. β, ε: settings."
        ),
        code=(definition, terms),
    )


RULE = AdamWRule()
