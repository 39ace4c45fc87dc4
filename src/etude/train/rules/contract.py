"""The contract of an update rule: one object in one file, which all other code uses.

All rules have the same form, with decoupled weight decay (Loshchilov and Hutter 2019)::

    w <- w - lr * weight_decay * w - lr * direction

A rule describes its direction in four ways that must agree: as the optimizer that trains (fp32, fast), as a definition
in float64, as the terms of one number, and in words. :mod:`etude.train.rules.trial` compares the first three when a
rule is registered.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from etude.config import ResolvedTrain
from etude.device import Device, Dtype
from etude.model.config import ModelConfig
from etude.train.rules.terms import NumberUpdate

Role = Literal["hidden", "output", "embedding", "vector"]
"""Role of a parameter: "hidden", a matrix that maps activations to activations; "output", the output matrix, tied or
not; "embedding", a lookup table; "vector", a bias or the weight of a norm."""
ROLES: frozenset[Role] = frozenset({"hidden", "output", "embedding", "vector"})
BASE_WIDTH = 128
"""The hidden_size at which ``train.lr`` is the rate of every parameter."""
_FP32_BYTES = 4


@dataclass(frozen=True)
class Parameter:
    """Name, role and shape of a parameter, by which rules choose their options."""

    name: str
    role: Role
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Rate:
    """A peak learning rate that the dial derives, with its reason."""

    value: float
    reason: str


@dataclass(frozen=True)
class Hyperparameters:
    """The hyperparameters of a rule for one parameter in one update.

    ``betas``, ``eps`` and ``momentum`` have their usual meaning; ``extra`` holds those of a single rule.
    """

    rule: str
    lr: float  # of this step
    weight_decay: float
    betas: tuple[float, float] = (0.0, 0.0)
    eps: float = 0.0
    momentum: float = 0.0
    extra: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Definition:
    """An update in float64: ``move`` is lr * direction, to be subtracted; ``state`` has the leaves after it."""

    move: Tensor
    state: Mapping[str, Tensor]


@dataclass(frozen=True)
class Tolerances:
    """How far an update may differ from its definition by rounding.

    Attributes:
        update: norm of the difference over the norm of the update, from the same gradient and state.
        device: largest difference over the root mean square, for a whole training step on a device (the self-test), by
            the dtype of its matrix products.
        device_scale: how far the slope of the device's numbers against the exact ones may differ from 1, by dtype.
    """

    update: float
    device: Mapping[Dtype, float]
    device_scale: Mapping[Dtype, float]


@dataclass(frozen=True)
class Explanation:
    """The rule explained for the page, at four depths.

    Attributes:
        picture, stops: an analogy, and a sentence on where it fails.
        words: the rule in ordinary words.
        formulas: one line each, as text: ``m ← β₁ m + (1 - β₁) g``. The page typesets them.
        symbols: the meaning of the letters.
        code: functions and classes whose source the page shows.
    """

    picture: str
    stops: str
    words: str
    formulas: Sequence[str]
    symbols: str
    code: Sequence[Any]


class UpdateRule(ABC):
    """An update rule. Register an instance with :func:`etude.train.rules.register`.

    Attributes:
        name: the value of ``train.optimizer``, also in the settings of runs and in JSON.
        title: the name for readers.
        summary: a sentence that the page shows beside a weight that the rule updated, or "".
        moves: the roles of the parameters that it can update. AdamW updates the others.
        rates: the settings of its peak learning rates, such as ``train.lr``, with the dial's values.
        swept: whether the dial's rates were swept with this rule. Then the doctor judges the rates of a run by them.
        tolerances: the effect of rounding on its updates.
        explanation: the rule in words.
        whole: symbols of terms that depend on the whole tensor (see :meth:`of_whole`).
    """

    name: ClassVar[str]
    title: ClassVar[str]
    summary: ClassVar[str]
    moves: ClassVar[frozenset[Role]]
    rates: ClassVar[Mapping[str, Rate]]
    tolerances: ClassVar[Tolerances]
    explanation: ClassVar[Explanation]
    swept: ClassVar[bool] = False
    whole: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def options(self, parameter: Parameter, settings: ResolvedTrain, config: ModelConfig) -> dict[str, Any]:
        """Return the options of a parameter's group: ``lr`` (the peak), ``weight_decay``, and those of the rule.

        Parameters with equal options share a group. All settings in :attr:`rates` are resolved.
        """

    @abstractmethod
    def optimizer(
        self, groups: Sequence[dict[str, Any]], settings: ResolvedTrain, device: Device
    ) -> torch.optim.Optimizer:
        """Build the optimizer that trains. Its state must be the leaves of :meth:`state_shapes`, all tensors."""

    def cut(self, parameter: Parameter, config: ModelConfig) -> int:
        """Return the dimension along which a parameter is best cut into pieces, one for each process.

        A rule whose update of a number depends on others may prefer one. It must accept any cut.
        """
        return 0

    def schedule(self, options: dict[str, Any], momentum: float) -> None:  # noqa: B027 - most rules have no momentum
        """Set scheduled options besides ``lr`` before an update; ``momentum`` is the scheduled value."""

    @abstractmethod
    def hyperparameters(self, options: Mapping[str, Any], shape: Sequence[int]) -> Hyperparameters:
        """Return the hyperparameters of an update for a parameter of this shape, from the options of its group."""

    @abstractmethod
    def state_shapes(self, shape: Sequence[int]) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the state's leaves, all fp32, for a parameter of this shape."""

    def state_bytes(self, shape: Sequence[int]) -> int:
        """Return the bytes of the state of a parameter of this shape."""
        return _FP32_BYTES * sum(math.prod(leaf) for leaf in self.state_shapes(shape).values())

    @abstractmethod
    def definition(self, gradient: Tensor, state: Mapping[str, Tensor], used: Hyperparameters) -> Definition:
        """Return the update in float64, written from its publication, independent of the training code.

        ``gradient`` (clipped) and ``state`` (all leaves; zero before the first update) are float64 on the CPU.
        """

    def rounding(self, gradient: Tensor, state: Mapping[str, Tensor], used: Hyperparameters) -> Tensor | None:
        """Return for each number the error of fp32 in the move, where a relative norm cannot express it; else None.

        Only discontinuous rules need it, such as one with a sign.
        """
        return None

    @abstractmethod
    def terms(self, number: NumberUpdate) -> None:
        """Add the terms of one number's update to ``number``. The last one has the symbol ``direction``."""

    def of_whole(self, moved: Tensor, used: Hyperparameters) -> dict[str, Tensor]:
        """Return the tensors of :attr:`whole`, each of the parameter's shape, as the run computed them.

        ``moved`` is the update of a parameter of zeros by the run's optimizer, in float64: -lr * direction.
        """
        return {}


def weight_decay_of(parameter: Parameter, settings: ResolvedTrain) -> float:
    """Return the weight decay of a parameter: that of the settings for matrices, 0 for biases and norms."""
    return 0.0 if parameter.role == "vector" else settings.weight_decay


def rate_at_width(parameter: Parameter, settings: ResolvedTrain, config: ModelConfig) -> float:
    """Return the learning rate of a rule whose updates have the same size everywhere: lr / width for matrices.

    With ``train.lr_by_width`` false it is ``train.lr`` for every parameter.

    A sum over more inputs changes more if each weight changes by the same amount. Scaled by the width, a rate found at
    :data:`BASE_WIDTH` holds at any width (muP: Yang et al. 2022, "Tensor Programs V", table 3). A tied output matrix
    counts as an output matrix.
    """
    lr = settings.lr
    if settings.lr_by_width is False:
        return lr
    if parameter.role in ("hidden", "output"):
        return lr * BASE_WIDTH / config.hidden_size
    # What a scaled embedding adds to the stream must change by as much as an unscaled one.
    return lr / config.embedding_scale if parameter.role == "embedding" else lr
