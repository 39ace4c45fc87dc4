"""Layers of neurons: what the units of a layer read, their incoming and outgoing weights, and where they add."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from etude.errors import InputError


@dataclass(frozen=True)
class NodeLayer:
    """A layer of F units that read N numbers each and add to M numbers (N = M = D in a transformer).

    Attributes:
        path: name of the layer, such as "model.layers.2.mlp". Its activations are ``path.pre``, ``path.post``, and
            ``path.pre_linear`` where it is gated.
        size: F.
        reads: name of the activation that every unit reads.
        gate, up, out: names of the linear layers of a unit: into its activation function, its linear factor (None
            without a gate), and its output.
        added_to: name of the activation that the outputs are added to.
        dropout_place: index of the keep mask (`LanguageModel.dropout_shape`) that follows the units.
        drops_units: whether that mask drops the units themselves instead of the sum of their outputs.
    """

    path: str
    size: int
    reads: str
    gate: str
    up: str | None
    out: str
    added_to: str
    dropout_place: int
    drops_units: bool = False

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
