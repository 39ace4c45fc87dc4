"""Where the neurons of a network sit: what a layer of them reads, its weights in and out, and what it is added to."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from etude.errors import InputError


@dataclass(frozen=True)
class NodeLayer:
    """A layer of F units that read N numbers each and add to M (N = M = D in a transformer).

    Attributes:
        path: what the layer is called, such as "model.layers.2.mlp"; its activations are ``path.pre``, ``path.post``,
            and ``path.pre_linear`` where it is gated.
        size: F.
        reads: the activation that every unit reads.
        gate, up, out: names of the linear layers with which a unit reads, reads what it lets through (None where
            nothing is gated), and writes.
        added_to: the activation that the units are added to.
        dropout_place: which of the keep masks (`LanguageModel.dropout_shape`) is applied behind the units.
        drops_units: whether that mask drops the units themselves, and not what they add.
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
        """The activations that show what a unit does."""
        leaves = ("pre", "post") if self.up is None else ("pre", "pre_linear", "post")
        return frozenset((self.reads, *(f"{self.path}.{leaf}" for leaf in leaves)))

    def linear(self, model: nn.Module, name: str) -> nn.Linear:
        """Return the linear layer called ``name``."""
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        return layer

    def incoming(self, model: nn.Module, name: str, unit: int) -> tuple[Float[Tensor, " N"], float | None]:
        """Return weights and bias with which a unit reads, in the layer called ``name`` (``gate`` or ``up``)."""
        layer = self.linear(model, name)
        bias = None if layer.bias is None else float(layer.bias[unit].detach())
        return layer.weight[unit].detach(), bias

    def all_outgoing(self, model: nn.Module) -> Float[Tensor, "M F"]:
        """Return what each unit adds when its activation is 1."""
        return self.linear(model, self.out).weight[:, : self.size].detach()

    def outgoing(self, model: nn.Module, unit: int) -> Float[Tensor, " M"]:
        """Return what one unit adds when its activation is 1."""
        return self.all_outgoing(model)[:, unit]

    def require_unit(self, unit: int) -> None:
        """Raise InputError when the layer has no such unit."""
        if not 0 <= unit < self.size:
            raise InputError(f"{self.path} has nodes 0 to {self.size - 1}, not {unit}")
