"""What an update rule is: one object that everything else asks, so that a rule stands in one file.

Every rule here has the same form, with decoupled weight decay (Loshchilov and Hutter 2019)::

    w <- w - lr * weight_decay * w - lr * direction

A rule says what the direction is, in four ways that must agree: as the optimizer that trains (fp32, fast), as its
definition in float64, as the terms of one number, and in words. :mod:`etude.train.rules.trial` holds the first three
against each other when a rule is registered.
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
"""What a parameter is to the network: a matrix between embedding and output (it maps activations to activations), the
output matrix (tied or not), a table that is looked up, or a bias or norm."""
ROLES: frozenset[Role] = frozenset({"hidden", "output", "embedding", "vector"})
BASE_WIDTH = 128
"""The hidden_size at which ``train.lr`` is the rate of every parameter."""
_FP32_BYTES = 4


@dataclass(frozen=True)
class Parameter:
    """A parameter as a rule sees it before it takes it."""

    name: str
    role: Role
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Rate:
    """A peak learning rate that the dial derives, and why this one."""

    value: float
    reason: str


@dataclass(frozen=True)
class Hyperparameters:
    """What a rule used for one parameter in one update.

    ``betas``, ``eps`` and ``momentum`` have the meaning they have in the field; ``extra`` holds what only one rule has.
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
    """An update in float64: ``move`` is lr * direction, which is subtracted; ``state`` the leaves after it."""

    move: Tensor
    state: Mapping[str, Tensor]


@dataclass(frozen=True)
class Tolerances:
    """How far an update may be from its definition for rounding alone.

    Attributes:
        update: norm of the difference over the norm of the update, from the very gradient and state that the run had.
        device: largest difference over the root mean square, of a whole training step on a device (the self-test), by
            the arithmetic of its products.
        device_scale: how far the slope of the device's numbers over the exact ones may be from 1, likewise.
    """

    update: float
    device: Mapping[Dtype, float]
    device_scale: Mapping[Dtype, float]


@dataclass(frozen=True)
class Explanation:
    """The rule for a reader of the page, at four depths.

    Attributes:
        picture, stops: an analogy, and the sentence that says where it stops being true.
        words: the rule in ordinary words.
        formulas: a line each, as text: ``m ← β₁ m + (1 - β₁) g``. The page sets them as formulas.
        symbols: what the letters mean.
        code: functions and classes to read.
    """

    picture: str
    stops: str
    words: str
    formulas: Sequence[str]
    symbols: str
    code: Sequence[Any]


class UpdateRule(ABC):
    """Everything there is to know of an update rule. Register an instance with :func:`etude.train.rules.register`.

    Attributes:
        name: the value of ``train.optimizer``; it is written into checkpoints' settings and answers.
        title: the name that readers know.
        summary: a sentence beside a weight that the rule moved, or nothing.
        moves: the roles of the parameters that it may take. What it may not take is moved by AdamW.
        rates: the settings of its peak learning rates, such as ``train.lr``, with the dial's value.
        swept: whether the dial's rates were swept with this rule, so that the doctor may judge a run's by them.
        tolerances: what rounding may do to its update.
        explanation: the rule in words.
        whole: symbols of terms that do not follow from one number alone (see :meth:`of_whole`).
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
        """Return the options of a parameter's group: ``lr`` (the peak), ``weight_decay``, and all that the rule reads.

        Parameters with equal options form a group. Every setting in :attr:`rates` is resolved.
        """

    @abstractmethod
    def optimizer(
        self, groups: Sequence[dict[str, Any]], settings: ResolvedTrain, device: Device
    ) -> torch.optim.Optimizer:
        """Return the optimizer that trains. Its state holds the leaves of :meth:`state_shapes`, and only tensors."""

    def schedule(self, options: dict[str, Any], momentum: float) -> None:  # noqa: B027 - most rules have nothing to do
        """Change what moves through a run besides ``lr``, before each update; ``momentum`` is the schedule's."""

    @abstractmethod
    def hyperparameters(self, options: Mapping[str, Any], shape: Sequence[int]) -> Hyperparameters:
        """Return what an update with a group's options uses for a parameter of this shape."""

    @abstractmethod
    def state_shapes(self, shape: Sequence[int]) -> dict[str, tuple[int, ...]]:
        """Return the state's leaves for a parameter of this shape, all fp32 tensors, with the shape of each."""

    def state_bytes(self, shape: Sequence[int]) -> int:
        """Return the memory of the state of a parameter of this shape."""
        return _FP32_BYTES * sum(math.prod(leaf) for leaf in self.state_shapes(shape).values())

    @abstractmethod
    def definition(self, gradient: Tensor, state: Mapping[str, Tensor], used: Hyperparameters) -> Definition:
        """Return the update in float64 as it is published, without the code that trains.

        ``gradient`` (clipped) and ``state`` (every leaf; zero before the first update) are float64 and on the CPU.
        """

    def rounding(self, gradient: Tensor, state: Mapping[str, Tensor], used: Hyperparameters) -> Tensor | None:
        """Return how far fp32 may take each number of the move from its definition, where a norm cannot say it.

        Only a rule that is not continuous, such as one that takes a sign, has any.
        """
        return None

    @abstractmethod
    def terms(self, number: NumberUpdate) -> None:
        """Add the terms of one number's update to ``number``; the last has the symbol ``direction``."""

    def of_whole(self, moved: Tensor, used: Hyperparameters) -> dict[str, Tensor]:
        """Return the tensors behind :attr:`whole`, each of the parameter's shape, as the run made them.

        ``moved`` is what the run's own optimizer adds to a parameter of zeros, in float64: -lr * direction.
        """
        return {}


def weight_decay_of(parameter: Parameter, settings: ResolvedTrain) -> float:
    """Return the weight decay of a parameter: matrices have it, biases and norms have none."""
    return 0.0 if parameter.role == "vector" else settings.weight_decay


def rate_at_width(parameter: Parameter, lr: float, config: ModelConfig) -> float:
    """Return the rate of a rule that moves every number alike: for matrices it falls with the width.

    A sum over more inputs moves more when each weight moves as far, so a rate found at :data:`BASE_WIDTH` holds at
    any width (muP: Yang et al. 2022, "Tensor Programs V", table 3). An output matrix that is tied to the embedding
    counts as an output matrix.
    """
    return lr * BASE_WIDTH / config.hidden_size if parameter.role in ("hidden", "output") else lr
