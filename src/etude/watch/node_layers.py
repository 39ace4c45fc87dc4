"""The layers of nodes of a network: what each reads, its weights in and out, and what its output is added to."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from etude.errors import InputError
from etude.messages import suggest_name
from etude.model.language_model import LanguageModel
from etude.model.layers import GatedMLP
from etude.model.mlp import WindowMLP
from etude.model.transformer import Transformer
from etude.watch.forward import LOGITS
from etude.watch.reconciliation import nodes_of


@dataclass(frozen=True)
class Wiring:
    """A layer of F nodes that read N numbers each and add to M (N = M = D in a transformer).

    ``gate``, ``up`` and ``out`` are the names of their linear layers; ``up`` is None where nothing is gated.
    ``reads`` and ``added_to`` are names of activations.
    """

    layer: str
    size: int  # F
    reads: str
    gate: str
    up: str | None
    out: str
    added_to: str

    @property
    def watched(self) -> frozenset[str]:
        """The activations that tell what a node does."""
        leaves = ("pre", "post") if self.up is None else ("pre", "pre_linear", "post")
        return frozenset((self.reads, *(f"{self.layer}.{leaf}" for leaf in leaves)))

    def linear(self, model: LanguageModel, name: str) -> nn.Linear:
        """The linear layer called ``name``."""
        found = model.get_submodule(name)
        assert isinstance(found, nn.Linear)
        return found

    def incoming(
        self, model: LanguageModel, name: str, unit: int
    ) -> tuple[Float[Tensor, " N"], float | None]:
        """Weights and bias with which a node reads, in the layer called ``name`` (``gate`` or ``up``)."""
        layer = self.linear(model, name)
        bias = None if layer.bias is None else float(layer.bias[unit].detach())
        return layer.weight[unit].detach(), bias

    def outgoing(self, model: LanguageModel, unit: int) -> Float[Tensor, " M"]:
        """What one unit of a node's activation adds."""
        return self.linear(model, self.out).weight[:, unit].detach()

    def require_unit(self, unit: int) -> None:
        """Raises InputError when the layer has no such node."""
        if not 0 <= unit < self.size:
            raise InputError(f"{self.layer} has nodes 0 to {self.size - 1}, not {unit}")


def wiring_of(model: LanguageModel, layer: str) -> Wiring:
    """The nodes of ``layer`` (such as "model.layers.2.mlp"; "model" in the mlp family). No numbers are read.

    Raises:
        InputError: no nodes are called so; the message names the nearest that are.
    """
    found = {path: (reads, linear) for path, reads, linear in nodes_of(model)}
    if layer not in found:
        raise InputError(f"no layer of nodes is called '{layer}': {suggest_name(layer, list(found))}")
    reads, linear = found[layer]
    if isinstance(model, WindowMLP):
        return Wiring(layer, linear.out_features, reads, "model.hidden", None, "lm_head", LOGITS)
    gated = isinstance(model.get_submodule(layer), GatedMLP)
    return Wiring(
        layer,
        linear.out_features,
        reads,
        f"{layer}.gate_proj" if gated else f"{layer}.up_proj",
        f"{layer}.up_proj" if gated else None,
        f"{layer}.down_proj",
        layer.removesuffix(".mlp") + ".resid_post",
    )


@torch.no_grad()
def token_effects(model: LanguageModel, wiring: Wiring, unit: int) -> Float[Tensor, " V"]:
    """What one unit of the node's activation adds to each logit directly, minus the mean over the vocabulary; float64.

    Of a transformer that is the path from the node along the residual stream through the last norm's weight and the
    output matrix. Two things are left out: the division by the norm's scale, which depends on the text and is the same
    for all tokens, and what later layers make of it. Of the mlp family it is the head's column, and all there is.
    """
    column = wiring.outgoing(model, unit).cpu().double()
    if isinstance(model, Transformer):
        norm = model.model.norm
        if isinstance(norm, nn.LayerNorm):
            column = column - column.mean()
        weight = norm.weight
        assert isinstance(weight, Tensor)
        column = model.unembedding()[0].cpu().double() @ (weight.cpu().double() * column)
    return column - column.mean()
