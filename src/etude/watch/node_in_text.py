"""A neuron of any network along a text: a run at a step, a checkpoint, or any model folder."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from etude.model.nodes import NodeLayer
from etude.watch.node_layers import find_node_layer, token_effects
from etude.watch.one_node import TokenEffect, effect_lines, extreme_effects
from etude.watch.passages import plain
from etude.watch.prompts import Prompt
from etude.watch.terms import NodeSum, node_sum


@dataclass(frozen=True, eq=False)
class NodeInText:
    """A neuron at every token of a prompt.

    Attributes:
        post: (T,) its activation.
        effects: (V,) what an activation of 1 adds to each logit directly, minus their mean; float64.
        promoted, suppressed: the tokens with the highest and the lowest effects.
    """

    prompt: Prompt = field(repr=False)
    node_layer: NodeLayer
    unit: int
    post: Float[Tensor, " T"]
    effects: Float[Tensor, " V"]
    promoted: tuple[TokenEffect, ...]
    suppressed: tuple[TokenEffect, ...]

    @property
    def strongest(self) -> int:
        """The position at which its activation is farthest from zero."""
        return int(self.post.abs().argmax())

    def on(self, position: int) -> NodeSum:
        """Return what it computes at a position, term by term."""
        prompt = self.prompt
        activations = {name: prompt.activation(name) for name in self.node_layer.watched}
        ids = tuple(prompt.ids[: position + 1].tolist())
        return node_sum(prompt.model, self.node_layer, self.unit, activations, ids, prompt.tokens[position])

    def __repr__(self) -> str:
        along = "  ".join(
            f"{plain(token)} {float(value):+.2f}"
            for token, value in zip(self.prompt.tokens, self.post, strict=True)
        )
        return "\n".join(
            [
                f"{self.node_layer.path} neuron {self.unit} along {len(self.post)} tokens",
                along,
                *effect_lines(self.promoted, self.suppressed, self.node_layer),
            ]
        )


@torch.no_grad()
def look_at_node_in_text(prompt: Prompt, layer: str, unit: int) -> NodeInText:
    """Return the neuron ``unit`` of ``layer`` (such as "model.layers.2.mlp") at every token of ``prompt``.

    Raises:
        InputError: no such layer or neuron.
    """
    node_layer = find_node_layer(prompt.model, layer)
    node_layer.require_unit(unit)
    effects = token_effects(prompt.model, node_layer, unit)
    post = prompt.activation(f"{layer}.post")[0, :, unit].cpu()
    return NodeInText(prompt, node_layer, unit, post, effects, *extreme_effects(effects, prompt.decode))
