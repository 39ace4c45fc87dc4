"""Lion (Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms", arXiv 2302.06675), added from outside.

For a parameter w with gradient g::

    direction = sign(beta1 * m + (1 - beta1) * g)
    m <- beta2 * m + (1 - beta2) * g

Importing this file registers it: ETUDE_PLUGINS=lion.py etude train --set train.optimizer=lion
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from etude.config import ResolvedTrain
from etude.device import Device
from etude.model.config import ModelConfig
from etude.train.rules import (
    ROLES,
    Definition,
    Explanation,
    Hyperparameters,
    NumberUpdate,
    Parameter,
    Rate,
    Tolerances,
    UpdateRule,
    rate_at_width,
    register,
    sign,
    weight_decay_of,
)

BETAS = (0.9, 0.99)
"""The paper's; those of the settings are AdamW's."""
UNDECIDED = 4 * 2.0**-23
"""Where the two parts of a direction cancel to this share of their sizes, rounding decides the sign."""


class Lion(torch.optim.Optimizer):
    """Lion with decoupled weight decay; state: ``exp_avg`` of each parameter."""

    def __init__(self, params: Sequence[dict[str, Any]], betas: tuple[float, float]) -> None:
        super().__init__(params, {"betas": betas})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Apply one update from the parameters' ``grad``."""
        for group in self.param_groups:
            first, second = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if "exp_avg" not in state:
                    state["exp_avg"] = torch.zeros_like(parameter)
                direction = state["exp_avg"].mul(first).add_(parameter.grad, alpha=1 - first).sign_()
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(direction, alpha=-group["lr"])
                state["exp_avg"].mul_(second).add_(parameter.grad, alpha=1 - second)


class LionRule(UpdateRule):
    """Lion over any parameter. Every number moves by the rate itself, so the rate of matrices falls with the width."""

    name = "lion"
    title = "Lion"
    summary = (
        "Lion moves every weight by the learning rate, up or down: only the sign of its direction counts."
    )
    moves = ROLES
    rates: ClassVar = {"train.lr": Rate(0.002, "a tenth of AdamW's, as its authors advise")}
    # A sign that rounding decides is wrong by 2, whatever the arithmetic; few are.
    tolerances = Tolerances(
        update=1e-3, device={"fp32": 2.2, "bf16": 2.2}, device_scale={"fp32": 1e-3, "bf16": 0.1}
    )

    def options(self, parameter: Parameter, settings: ResolvedTrain, config: ModelConfig) -> dict[str, Any]:
        return {
            "lr": rate_at_width(parameter, settings, config),
            "weight_decay": weight_decay_of(parameter, settings),
            "betas": BETAS,
        }

    def optimizer(
        self, groups: Sequence[dict[str, Any]], settings: ResolvedTrain, device: Device
    ) -> torch.optim.Optimizer:
        return Lion(groups, BETAS)

    def hyperparameters(self, options: Mapping[str, Any], shape: Sequence[int]) -> Hyperparameters:
        return Hyperparameters(self.name, options["lr"], options["weight_decay"], options["betas"])

    def state_shapes(self, shape: Sequence[int]) -> dict[str, tuple[int, ...]]:
        return {"exp_avg": tuple(shape)}

    def definition(self, gradient: Tensor, state: Mapping[str, Tensor], used: Hyperparameters) -> Definition:
        first, second = used.betas
        ahead = first * state["exp_avg"] + (1 - first) * gradient
        mean = second * state["exp_avg"] + (1 - second) * gradient
        return Definition(used.lr * ahead.sign(), {"exp_avg": mean})

    def rounding(self, gradient: Tensor, state: Mapping[str, Tensor], used: Hyperparameters) -> Tensor:
        first, _ = used.betas
        parts = first * state["exp_avg"], (1 - first) * gradient
        undecided = (parts[0] + parts[1]).abs() < UNDECIDED * (parts[0].abs() + parts[1].abs())
        return 2 * used.lr * undecided.double()

    def terms(self, number: NumberUpdate) -> None:
        first, second = number.used.betas
        m, g = number.before("exp_avg"), number.gradient
        ahead = number.term("ahead", "a step ahead", first * m + (1 - first) * g)
        number.term("m", "m, the mean of gradients", second * m + (1 - second) * g, leaf="exp_avg")
        number.term("direction", "direction, its sign", sign(ahead))

    explanation = Explanation(
        picture="A vote on every weight in which only the side counts, not how loudly it is argued for.",
        stops="The votes of earlier steps count too, and fade.",
        words=(
            "Lion keeps one memory for each weight, the mean of its gradients. It mixes that with the new gradient and "
            "takes the sign: every weight moves by the learning rate itself, up or down."
        ),
        formulas=("w ← w - η λ w - η sign(β₁ m + (1 - β₁) g)", "m ← β₂ m + (1 - β₂) g"),
        symbols="g: gradient, clipped. m: the memory. η: learning rate. λ: weight decay. β: settings.",
        code=(Lion.step, definition),
    )


RULE = LionRule()
register(RULE)
