"""The optimizers of one model: one for each update rule, with a common state for checkpoints.

``train.optimizer`` names a rule (:mod:`etude.train.rules`). It updates the parameters that it can handle; AdamW updates
the others.

State tensors are named after their parameters (``<parameter>.exp_avg``). So a checkpoint does not depend on the order
in which a program lists its parameters.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from etude.config import ResolvedTrain
from etude.device import Device
from etude.errors import InputError
from etude.model.adapter import adapter_parameters, is_factor
from etude.model.build import empty_model
from etude.model.config import ModelConfig
from etude.model.cost import count_parameters
from etude.model.language_model import LanguageModel
from etude.model.pieces import is_piece, like, local
from etude.train.rules.chosen import rule_named, rule_of, rules_in_use
from etude.train.rules.contract import Hyperparameters, Parameter, Role, UpdateRule
from etude.untrusted import shown


class UpdateRules:
    """The optimizers of a model, each over the parameters that its rule updates.

    Args:
        chosen: overrides the rule that the settings name.

    Attributes:
        names: of all parameters.
        trained: the parameters that are updated, in the order of the model.
    """

    def __init__(
        self,
        model: LanguageModel,
        settings: ResolvedTrain,
        device: Device,
        chosen: UpdateRule | None = None,
    ) -> None:
        self.names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        chosen = chosen or rule_named(settings.optimizer)
        tensors = dict(model.named_parameters())
        groups: dict[UpdateRule, dict[tuple[Any, ...], dict[str, Any]]] = defaultdict(dict)
        for parameter in parameters_of(model):  # parameters with equal options share a group
            if not tensors[parameter.name].requires_grad:
                continue
            rule = rule_of(parameter, chosen)
            options = rule.options(parameter, settings, model.config)
            group = groups[rule].setdefault(tuple(sorted(options.items())), {"params": [], **options})
            group["params"].append(tensors[parameter.name])
        self.rules = [rule for rule in rules_in_use(chosen) if groups[rule]]
        self.optimizers: list[torch.optim.Optimizer] = [
            rule.optimizer(list(groups[rule].values()), settings, device) for rule in self.rules
        ]
        self._peak_lrs = [[group["lr"] for group in o.param_groups] for o in self.optimizers]

    @property
    def rate_settings(self) -> list[str]:
        """Names of the settings of the peak learning rates."""
        return list(dict.fromkeys(key for rule in self.rules for key in rule.rates))

    def step(self, factor: float, momentum: float) -> None:
        """Update every parameter from its gradient, at ``factor`` times the peak learning rates.

        ``momentum`` is the scheduled value, for rules that have one.
        """
        for rule, optimizer, peaks in zip(self.rules, self.optimizers, self._peak_lrs, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * factor
                rule.schedule(group, momentum)
            optimizer.step()

    def zero_grad(self) -> None:
        """Set all gradients to None."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def used(self) -> dict[str, Hyperparameters]:
        """Return the hyperparameters of the last step, by parameter."""
        return {
            self.names[parameter]: rule.hyperparameters(group, parameter.shape)
            for rule, _, group, parameter in self._each()
        }

    def named_state(self) -> dict[str, Tensor]:
        """Return the state tensors by name, such as ``<parameter>.exp_avg``. Empty before the first update."""
        named = {}
        for rule, optimizer, _, parameter in self._each():
            state = optimizer.state.get(parameter, {})
            for leaf in rule.state_shapes(parameter.shape):
                if leaf in state:
                    named[f"{self.names[parameter]}.{leaf}"] = state[leaf]
        return named

    def load_named_state(self, named: Mapping[str, Tensor]) -> None:
        """Load the state from ``named``, which is empty before the first update.

        Raises:
            InputError: a state tensor is missing, or has another shape than its rule declares.
        """
        for optimizer in self.optimizers:
            optimizer.state.clear()
        for rule, optimizer, _, parameter in self._each() if named else ():
            for leaf, shape in rule.state_shapes(parameter.shape).items():
                dtype = parameter.dtype if shape else torch.float32
                value = _matching(named, f"{self.names[parameter]}.{leaf}", shape, dtype)
                # Scalars too: fused AdamW requires its step counter on the device of the parameter.
                optimizer.state[parameter][leaf] = value.to(parameter.device, copy=True)

    def load_parts(self, read: Callable[[str, Tensor | None], Tensor | None] | None) -> None:
        """Load the state of divided parameters; None before the first update.

        Args:
            read: called with a name, and the parameter as whose piece a leaf is divided (None: it is not).

        Raises:
            InputError: a state tensor is missing, or has another shape than its rule declares.
        """
        for optimizer in self.optimizers:
            optimizer.state.clear()
        if read is None:
            return
        for rule, optimizer, _, parameter in self._each():
            for leaf, shape in rule.state_shapes(parameter.shape).items():
                divided = parameter if is_piece(parameter) and shape == tuple(parameter.shape) else None
                key = f"{self.names[parameter]}.{leaf}"
                value = read(key, divided)
                expected = shape if divided is None else tuple(local(divided).shape)
                dtype = parameter.dtype if shape else torch.float32
                value = _matching({} if value is None else {key: value}, key, expected, dtype)
                own = value.to(parameter.device, copy=True)
                optimizer.state[parameter][leaf] = own if divided is None else like(parameter, own)

    def _each(self) -> Iterator[tuple[UpdateRule, torch.optim.Optimizer, dict[str, Any], Tensor]]:
        """Yield (rule, optimizer, parameter group, parameter) of every parameter."""
        for rule, optimizer in zip(self.rules, self.optimizers, strict=True):
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    yield rule, optimizer, group, parameter


def parameters_of(model: LanguageModel) -> list[Parameter]:
    """Return name, role and shape of every parameter of a network."""
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    output = id(model.unembedding()[0])

    def role(parameter: Tensor) -> Role:
        if parameter.ndim < 2:
            return "vector"
        if id(parameter) == output:
            return "output"
        return "embedding" if id(parameter) in embeddings else "hidden"

    return [Parameter(name, role(p), tuple(p.shape)) for name, p in model.named_parameters()]


@lru_cache(64)
def parameters_of_config(config: ModelConfig) -> Sequence[Parameter]:
    """Return :func:`parameters_of` the network that ``config`` describes, without allocating it."""
    return tuple(parameters_of(empty_model(config)))


def is_trained(config: ModelConfig, name: str, only: str) -> bool:
    """Return whether a run with ``train.only`` trains the parameter of this name; with an adapter, only its factors."""
    trainable = config.adapter is None or is_factor(name)
    return trainable and (not only or re.search(only, name) is not None)


def require_trained(config: ModelConfig, only: str) -> None:
    """Raise InputError if ``train.only`` names no parameter of the network that ``config`` describes."""
    names = [parameter.name for parameter in parameters_of_config(config)]
    if config.adapter is not None:
        names = [name for name in names if is_factor(name)]
    if not any(is_trained(config, name, only) for name in names):
        raise InputError(
            f"no parameter has {shown(repr(only))} in its name: {names[0]} to {names[-1]} is there, "
            f"and layers.0 {'' if config.adapter else 'or embed_tokens '}would do"
        )


def freeze_others(model: LanguageModel, only: str) -> None:
    """Exclude from training all parameters that ``train.only`` does not name, and the base of an adapter."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_trained(model.config, name, only))


def trained_parameters(config: ModelConfig, only: str) -> int:
    """Return how many numbers a run with ``train.only`` trains."""
    return sum(math.prod(p.shape) for p in parameters_of_config(config) if is_trained(config, p.name, only))


def saved_weights(config: ModelConfig) -> int:
    """Return how many numbers a checkpoint holds besides the optimizer's: those of an adapter, or of the network."""
    return adapter_parameters(config) or count_parameters(config).total


def layers_in_backward(config: ModelConfig, only: str) -> int:
    """Return through how many layers the backward pass goes: to the first one with a trained parameter."""
    first = next((p.name for p in parameters_of_config(config) if is_trained(config, p.name, only)), "")
    if layer := re.search(r"\blayers\.(\d+)\.", first):
        return config.num_hidden_layers - int(layer[1])
    return 0 if first.startswith(("model.norm.", "lm_head.")) else config.num_hidden_layers


def trains_head(config: ModelConfig, only: str) -> bool:
    """Return whether the output matrix is trained."""
    return any(p.role == "output" and is_trained(config, p.name, only) for p in parameters_of_config(config))


def state_bytes(config: ModelConfig, optimizer: str, only: str = "") -> int:
    """Return the bytes of the optimizer state for the network that ``config`` describes, of the trained parameters.

    Raises:
        InputError: unknown rule.
    """
    chosen = rule_named(optimizer)
    parameters = [p for p in parameters_of_config(config) if is_trained(config, p.name, only)]
    return sum(rule_of(parameter, chosen).state_bytes(parameter.shape) for parameter in parameters)


def hyperparameters(
    config: ModelConfig, settings: ResolvedTrain, lr_factor: float, momentum: float
) -> dict[str, Hyperparameters]:
    """Return the hyperparameters of an update by parameter, derived from the settings without an optimizer."""
    chosen, used = rule_named(settings.optimizer), {}
    for parameter in parameters_of_config(config):
        if not is_trained(config, parameter.name, settings.only):
            continue
        rule = rule_of(parameter, chosen)
        options = rule.options(parameter, settings, config)
        options["lr"] *= lr_factor
        rule.schedule(options, momentum)
        used[parameter.name] = rule.hyperparameters(options, parameter.shape)
    return used


def _matching(named: Mapping[str, Tensor], key: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return the state tensor called ``key``; raise InputError unless it has this shape and dtype."""
    value = named.get(key)
    if value is None or value.shape != shape or value.dtype != dtype:
        problem = "is missing" if value is None else f"has shape {tuple(value.shape)} of {value.dtype}"
        raise InputError(
            f"optimizer state '{key}' {problem}: this checkpoint cannot be resumed, use an older one"
        )
    return value
