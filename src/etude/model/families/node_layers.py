"""Where the neurons of a network sit, from its configuration alone: names and sizes, without tensors.

A neuron is a node: it multiplies numbers by its weights, adds them up, and passes the sum through a function.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from etude.model.config import ModelConfig

EMBED = "model.embed_tokens.embed"
"""Name of the first activation of every network: the embeddings of the tokens that a position reads."""
LOGITS = "logits"


@dataclass(frozen=True)
class NodeLayerPlan:
    """A layer of F neurons that read N numbers each.

    Attributes:
        path: name of the layer, such as "model.layers.2.mlp". Its activations are ``path.pre``, ``path.post``, and
            ``path.pre_linear`` where it is gated.
        size: F.
        inputs: N.
        reads: name of the activation that every neuron reads.
        gate, up, out: names of the linear layers of a neuron: into its activation function, its linear factor (None
            without a gate), and its output.
        added_to: name of the activation that the outputs are added to.
        dropout_place: index of the keep mask (`LanguageModel.dropout_shape`) that follows the neurons.
        drops_units: whether that mask drops the neurons themselves instead of the sum of their outputs.
    """

    path: str
    size: int
    inputs: int
    reads: str
    gate: str
    up: str | None
    out: str
    added_to: str
    dropout_place: int
    drops_units: bool = False


def transformer_node_layers(config: ModelConfig) -> list[NodeLayerPlan]:
    """Return the MLP of each layer; its neurons read the normed residual stream and add to the stream."""
    gated = config.mlp == "gated"
    layers = []
    for layer in range(config.num_hidden_layers):
        path, mlp = f"model.layers.{layer}", f"model.layers.{layer}.mlp"
        layers.append(
            NodeLayerPlan(
                path=mlp,
                size=config.intermediate_size,
                inputs=config.hidden_size,
                reads=f"{path}.post_attention_layernorm.normalized",
                gate=f"{mlp}.gate_proj" if gated else f"{mlp}.up_proj",
                up=f"{mlp}.up_proj" if gated else None,
                out=f"{mlp}.down_proj",
                added_to=f"{path}.resid_post",
                dropout_place=2 * layer + 2,
            )
        )
    return layers
