"""The layers of neurons of a network (`etude.model.families.node_layers`) with their incoming and outgoing weights."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from etude.errors import InputError
from etude.model.families.node_layers import NodeLayerPlan


@dataclass(frozen=True)
class NodeLayer(NodeLayerPlan):
    """A layer of F neurons that read N numbers each and add to M numbers (N = M = D in a transformer)."""

    @property
    def watched(self) -> frozenset[str]:
        """Names of the activations that show what a unit does."""
        leaves = ("pre", "post") if self.up is None else ("pre", "pre_linear", "post")
        return frozenset((self.reads, *(f"{self.path}.{leaf}" for leaf in leaves)))

    def linear(self, model: nn.Module, name: str) -> nn.Linear:
        """Return the linear layer called ``name``."""
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        return layer

    def incoming(self, model: nn.Module, name: str, unit: int) -> tuple[Float[Tensor, " N"], float | None]:
        """Return the incoming weights and bias of a unit in the linear layer called ``name`` (``gate`` or ``up``)."""
        layer = self.linear(model, name)
        bias = None if layer.bias is None else float(layer.bias[unit].detach())
        return layer.weight[unit].detach(), bias

    def all_outgoing(self, model: nn.Module) -> Float[Tensor, "M F"]:
        """Return the outgoing weights: what each unit adds when its activation is 1."""
        return self.linear(model, self.out).weight[:, : self.size].detach()

    def outgoing(self, model: nn.Module, unit: int) -> Float[Tensor, " M"]:
        """Return the outgoing weights of one unit."""
        return self.all_outgoing(model)[:, unit]

    def require_unit(self, unit: int) -> None:
        """Raise InputError when the layer has no such unit."""
        if not 0 <= unit < self.size:
            raise InputError(f"{self.path} has neurons 0 to {self.size - 1}, not {unit}")
