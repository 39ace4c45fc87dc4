"""A parameter's update as a run applied it, and as its rule defines it: in float64, and number by number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from etude.train.rules.contract import Definition, Hyperparameters, UpdateRule
from etude.train.rules.terms import NumberUpdate


@dataclass(frozen=True)
class ParameterUpdate:
    """A parameter before and after a step, with all inputs of the update. Tensors have its shape, on the CPU."""

    rule: UpdateRule
    name: str
    before: Tensor
    after: Tensor
    gradient: Tensor  # of the loss of the whole batch
    clip_factor: float  # what the gradient was multiplied by
    state_before: Mapping[str, Tensor]  # by leaf of the rule's state; empty before the first update
    state_after: Mapping[str, Tensor]
    used: Hyperparameters

    @property
    def clipped_gradient(self) -> Tensor:
        """The clipped gradient, which the rule receives."""
        return self.gradient * self.clip_factor

    @property
    def update(self) -> Tensor:
        """after - before, exact in float64."""
        return self.after.double() - self.before.double()

    @property
    def decay(self) -> Tensor:
        """The part of the update that is weight decay, in float64."""
        return -self.used.lr * self.used.weight_decay * self.before.double()

    @property
    def exact_state(self) -> dict[str, Tensor]:
        """All leaves of the state before the update, in float64; zeros before the first update."""
        return {
            leaf: self.state_before.get(leaf, torch.zeros(shape)).double()
            for leaf, shape in self.rule.state_shapes(self.before.shape).items()
        }

    @cached_property
    def definition(self) -> Definition:
        """The update in float64 by the rule's definition, from gradient and state before."""
        return self.rule.definition(self.clipped_gradient.double(), self.exact_state, self.used)

    @cached_property
    def by_the_rule(self) -> Tensor:
        """The change of the parameter in float64 by the rule's definition, with weight decay."""
        return self.decay - self.definition.move

    @property
    def difference(self) -> float:
        """Relative difference between applied update and :attr:`by_the_rule`, as a ratio of norms.

        fp32 rounds a parameter to its own precision, so small updates of large weights differ most.
        """
        expected = self.by_the_rule
        return float((self.update - expected).norm() / expected.norm().clamp(min=1e-300))

    @property
    def rounding(self) -> float:
        """The largest :attr:`difference` that rounding explains: of the result, and as the rule declares."""
        spacing = (
            torch.finfo(self.before.dtype).eps * torch.maximum(self.before.abs(), self.after.abs()).double()
        )
        declared = self.rule.rounding(self.clipped_gradient.double(), self.exact_state, self.used)
        if declared is not None:
            spacing = spacing + declared
        return float(spacing.norm() / self.by_the_rule.norm().clamp(min=1e-300))

    def number(self, index: tuple[int, ...], whole: Mapping[str, float]) -> NumberUpdate:
        """Return the terms of one number. ``whole`` has the values of terms that depend on the whole tensor."""
        clipped = float(self.gradient[index]) * self.clip_factor
        number = NumberUpdate(self.used, self.leaves(self.state_before, index), whole, clipped)
        self.rule.terms(number)
        return number

    def leaves(self, state: Mapping[str, Tensor], index: tuple[int, ...]) -> dict[str, float]:
        """Return the state of one number: the elements of leaves with the parameter's shape, and scalar counters.

        Leaves of another shape do not belong to single numbers, and are skipped.
        """
        return {
            leaf: float(value if value.ndim == 0 else value[index])
            for leaf, value in state.items()
            if value.ndim == 0 or value.shape == self.before.shape
        }
