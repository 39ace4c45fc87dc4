"""Find a layer of neurons by name, and measure what a neuron adds to the logits directly."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from etude.errors import InputError
from etude.messages import suggest_name
from etude.model.language_model import LanguageModel
from etude.model.nodes import NodeLayer


def find_node_layer(model: LanguageModel, path: str) -> NodeLayer:
    """Return the layer of neurons called ``path`` (such as "model.layers.2.mlp"; "model" in the mlp family).

    Raises:
        InputError: no layer has this name; the message suggests the nearest.
    """
    layers = {layer.path: layer for layer in model.node_layers()}
    if path not in layers:
        raise InputError(f"no layer of neurons is called '{path}': {suggest_name(path, list(layers))}")
    return layers[path]


@torch.no_grad()
def token_effects(model: LanguageModel, layer: NodeLayer, unit: int) -> Float[Tensor, " V"]:
    """Return what an activation of 1 of the neuron adds to each logit directly, minus the mean; float64.

    In a transformer this is the path from the neuron along the residual stream through the last norm's weight and the
    output matrix. It ignores two things: the division by the norm's scale, which depends on the text and is the same
    for all tokens, and what later layers compute from it. In the mlp family it is the head's column, and complete.
    """
    effects = model.direct_effect(layer, layer.outgoing(model, unit))
    return effects - effects.mean()
