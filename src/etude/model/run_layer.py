"""How a network runs one of its layers: directly, or through `torch.compile` as code that all layers share."""

from __future__ import annotations

import types
from collections.abc import Callable

import torch
from torch import Tensor, nn

from etude.model.config import ModelConfig

RunLayer = Callable[..., Tensor]
"""Applies a layer: called with the layer and its arguments, returns the residual stream after it."""


def compiles_by_layer(config: ModelConfig, dropout: float) -> bool:
    """Return whether one compiled layer can serve all: not with dropout, whose masks differ by layer."""
    adapter = config.adapter
    return config.family.compiles_by_layer and not dropout and not (adapter is not None and adapter.dropout)


def apply_layer(layer: nn.Module, *arguments: object) -> Tensor:
    """Apply a layer directly."""
    return layer(*arguments)  # type: ignore[no-any-return]


def compiled_layer() -> RunLayer:
    """Return a compiled :func:`apply_layer`.

    Layers of one shape are one graph, whose weights are arguments. So compilation takes as long for thirty layers as
    for one. The first call for a shape of the input compiles.
    """
    # Dynamo stores graphs by code object, and only a few of each: give every caller its own copy.
    function = types.FunctionType(
        apply_layer.__code__.replace(), apply_layer.__globals__, apply_layer.__name__
    )
    return torch.compile(function, fullgraph=True, dynamic=False)
