"""One weight or neuron of a model that has no training record, such as a published one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from etude.errors import InputError
from etude.messages import suggest_name
from etude.model.language_model import LanguageModel
from etude.watch.node_layers import find_node_layer, token_effects
from etude.watch.one_node import effect_lines, extreme_effects
from etude.watch.one_weight import computed_with, index_in


@dataclass(frozen=True)
class WeightInModel:
    """A number of a parameter, and where it lies among the others.

    Attributes:
        share_smaller: share of the parameter's numbers that are smaller in size.
        norm, mean, deviation: of the whole parameter.
    """

    name: str
    index: tuple[int, ...]
    shape: tuple[int, ...]
    value: float
    share_smaller: float
    norm: float
    mean: float
    deviation: float

    def __repr__(self) -> str:
        place = ", ".join(map(str, self.index))
        return (
            f"{self.name}[{place}] of {self.shape}: {self.value:+.9g}\n"
            f"larger in size than {self.share_smaller:.1%} of its parameter (mean {self.mean:+.4g}, standard deviation "
            f"{self.deviation:.4g}, norm {self.norm:.4g})"
        )


@dataclass(frozen=True)
class NodeInModel:
    """A neuron of a layer.

    Attributes:
        incoming, outgoing: norms of its weights.
        bias: of its sum; None where the layer has none.
        lines: the tokens that it makes more and less probable when it is active.
    """

    layer: str
    unit: int
    incoming: float
    outgoing: float
    bias: float | None
    lines: tuple[str, ...]

    def __repr__(self) -> str:
        bias = "no bias" if self.bias is None else f"bias {self.bias:+.4g}"
        return "\n".join(
            [
                f"{self.layer} neuron {self.unit}: norm of its incoming weights {self.incoming:.4g}, of its outgoing "
                f"weights {self.outgoing:.4g}, {bias}",
                *self.lines,
            ]
        )


@torch.no_grad()
def weight_in_model(model: LanguageModel, name: str, index: Sequence[int] | int) -> WeightInModel:
    """Return the number at ``index`` of the parameter ``name``.

    Raises:
        InputError: no such parameter (the message suggests the nearest) or index (it gives the shape).
    """
    parameters = dict(model.named_parameters())
    if name not in parameters:
        raise InputError(f"no parameter is called '{name}': {suggest_name(name, list(parameters))}")
    values = computed_with(model, name)
    place = index_in(name, index, tuple(values.shape))
    value = values[place]
    deviation, mean = torch.std_mean(values.double(), correction=0)
    return WeightInModel(
        name,
        place,
        tuple(values.shape),
        float(value),
        float((values.abs() < value.abs()).double().mean()),
        float(values.double().norm()),
        float(mean),
        float(deviation),
    )


@torch.no_grad()
def node_in_model(model: LanguageModel, decode: Callable[[int], str], layer: str, unit: int) -> NodeInModel:
    """Return the neuron ``unit`` of ``layer``, such as "model.layers.2.mlp".

    Raises:
        InputError: no such layer or neuron.
    """
    node_layer = find_node_layer(model, layer)
    node_layer.require_unit(unit)
    weights, bias = node_layer.incoming(model, node_layer.gate, unit)
    effects = token_effects(model, node_layer, unit)
    promoted, suppressed = extreme_effects(effects, decode)
    outgoing = float(node_layer.outgoing(model, unit).norm())
    lines = tuple(effect_lines(promoted, suppressed, node_layer))
    return NodeInModel(layer, unit, float(weights.norm()), outgoing, bias, lines)
