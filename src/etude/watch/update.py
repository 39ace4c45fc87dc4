"""How one parameter moved in one step: the rule that moved it, every term of it, and the same sum in float64.

AdamW (Loshchilov and Hutter 2019), with m and v after the step, t the number of steps::

    W <- W - lr * weight_decay * W - lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

Muon (Jordan et al. 2024), with M the momentum after the step and U its direction made orthogonal::

    W <- W - lr * weight_decay * W - lr * scale * U
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from etude.train.muon import Muon, blocks_lying, update_scale
from etude.train.newton_schulz import orthogonalize
from etude.train.optimizer import UpdateRules


@dataclass(frozen=True)
class Hyperparameters:
    """Of one parameter in one step, as they were used."""

    rule: Literal["adamw", "muon"]
    lr: float  # of this step
    weight_decay: float
    betas: tuple[float, float] = (0.0, 0.0)
    eps: float = 0.0
    momentum: float = 0.0
    blocks: tuple[int, int] = (1, 1)  # into which Muon divides the rows, and the columns


@dataclass(frozen=True)
class ParameterUpdate:
    """A parameter before and after a step, and all that moved it. Tensors have its shape and are on the CPU."""

    name: str
    before: Tensor
    after: Tensor
    gradient: Tensor  # of the loss of the whole batch
    clip_factor: float  # what the gradient was multiplied by
    state_before: Mapping[str, Tensor]  # exp_avg, exp_avg_sq, step; or momentum_buffer. Empty before step 1
    state_after: Mapping[str, Tensor]
    used: Hyperparameters

    @property
    def clipped_gradient(self) -> Tensor:
        """What the rule was given."""
        return self.gradient * self.clip_factor

    @property
    def update(self) -> Tensor:
        """What was added, in float64: exactly after - before."""
        return self.after.double() - self.before.double()

    @property
    def decay(self) -> Tensor:
        """The part of the update that pulls towards zero, in float64."""
        return -self.used.lr * self.used.weight_decay * self.before.double()

    @cached_property
    def direction(self) -> Tensor:
        """Where the rule moves to, before the learning rate, in float64, from the gradient and the state before.

        AdamW: the corrected mean over the square root of the corrected square. Muon: the orthogonal direction.
        """
        gradient, used = self.clipped_gradient.double(), self.used
        if used.rule == "muon":
            ahead = self.ahead
            lying = blocks_lying(ahead, *used.blocks)
            result = torch.empty_like(ahead)
            blocks_lying(result, *used.blocks).copy_(orthogonalize(lying))
            return result
        first, second = used.betas
        count = float(self._earlier("step")) + 1
        mean = torch.lerp(self._earlier("exp_avg"), gradient, 1 - first)
        square = torch.lerp(self._earlier("exp_avg_sq"), gradient**2, 1 - second)
        spread = (square / (1 - second**count)).sqrt() + used.eps
        direction: Tensor = mean / (1 - first**count) / spread
        return direction

    @property
    def ahead(self) -> Tensor:
        """Of Muon, in float64: Nesterov's direction, which is then made orthogonal."""
        gradient, used = self.clipped_gradient.double(), self.used
        buffer = torch.lerp(self._earlier("momentum_buffer"), gradient, 1 - used.momentum)
        return torch.lerp(gradient, buffer, used.momentum)

    @property
    def scale(self) -> float:
        """What the direction is multiplied by besides the learning rate: Muon's factor of the shape, else 1."""
        if self.used.rule == "adamw":
            return 1.0
        return update_scale(self.before.shape[0], self.before.shape[1], *self.used.blocks)

    @cached_property
    def by_the_rule(self) -> Tensor:
        """The update once more, in float64: decay and direction."""
        return self.decay - self.used.lr * self.scale * self.direction

    @property
    def difference(self) -> float:
        """Between the applied update and :attr:`by_the_rule`, as a share of the latter's norm.

        A parameter in fp32 cannot move by less than its own rounding, so a small update of a large weight differs most.
        """
        expected = self.by_the_rule
        return float((self.update - expected).norm() / expected.norm().clamp(min=1e-300))

    @property
    def rounding(self) -> float:
        """The largest :attr:`difference` that rounding the result to the parameter's own precision explains."""
        spacing = (
            torch.finfo(self.before.dtype).eps * torch.maximum(self.before.abs(), self.after.abs()).double()
        )
        return float(spacing.norm() / self.by_the_rule.norm().clamp(min=1e-300))

    def _earlier(self, leaf: str) -> Tensor:
        shape = () if leaf == "step" else self.before.shape
        return self.state_before.get(leaf, torch.zeros(shape)).double()


def hyperparameters(rules: UpdateRules) -> dict[str, Hyperparameters]:
    """What ``rules`` used in their last step, by parameter."""
    found = {}
    for optimizer in rules.optimizers:
        for group in optimizer.param_groups:
            used = _of_muon(group) if isinstance(optimizer, Muon) else _of_adamw(group)
            found.update({rules.names[parameter]: used for parameter in group["params"]})
    return found


def _of_muon(group: Mapping[str, Any]) -> Hyperparameters:
    blocks = (group["row_blocks"], group["column_blocks"])
    return Hyperparameters(
        "muon", group["lr"], group["weight_decay"], momentum=group["momentum"], blocks=blocks
    )


def _of_adamw(group: Mapping[str, Any]) -> Hyperparameters:
    return Hyperparameters("adamw", group["lr"], group["weight_decay"], group["betas"], group["eps"])
