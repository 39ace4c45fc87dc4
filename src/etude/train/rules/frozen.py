"""What moves a parameter that is not trained: nothing. Its gradient is computed when a step is opened, not in training.

It has the form of an update rule, so that such a parameter is shown like any other. No run can choose it.
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
    Definition,
    Explanation,
    Hyperparameters,
    Parameter,
    Tolerances,
    UpdateRule,
)
from etude.train.rules.terms import DIRECTION, NumberUpdate, constant


class FrozenRule(UpdateRule):
    """No update at all."""

    name = "frozen"
    title = "nothing, because it is frozen"
    summary = "The weight is frozen: its gradient is that of the loss, but it was not applied."
    moves = frozenset()
    rates: ClassVar = {}
    tolerances = Tolerances(update=0.0, device={}, device_scale={})
    explanation = Explanation("", "", "", (), "", ())

    def options(self, parameter: Parameter, settings: ResolvedTrain, config: ModelConfig) -> dict[str, Any]:
        raise NotImplementedError("a frozen parameter has no options")

    def optimizer(
        self, groups: Sequence[dict[str, Any]], settings: ResolvedTrain, device: Device
    ) -> torch.optim.Optimizer:
        raise NotImplementedError("a frozen parameter has no optimizer")

    def hyperparameters(self, options: Mapping[str, Any], shape: Sequence[int]) -> Hyperparameters:
        return Hyperparameters(self.name, 0.0, 0.0)

    def state_shapes(self, shape: Sequence[int]) -> dict[str, tuple[int, ...]]:
        return {}

    def definition(self, gradient: Tensor, state: Mapping[str, Tensor], used: Hyperparameters) -> Definition:
        return Definition(torch.zeros_like(gradient), {})

    def terms(self, number: NumberUpdate) -> None:
        number.term(DIRECTION, "direction: none, for it is frozen", constant(0.0))


FROZEN = FrozenRule()
