"""What a neuron computes at one token, term by term: inputs times weights, the bias, their sum, and the activation.

Sums are in float64, from the numbers that the forward pass read, and are compared with its result. A product in bf16
first rounds both factors to 8 bits: the numbers here are then the rounded ones, and the forward pass rounds the sum
once more, by up to 2^-8 of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from etude.device import Dtype
from etude.model.dropout import Dropout
from etude.model.language_model import LanguageModel
from etude.model.lora import dropped_product
from etude.model.nodes import NodeLayer
from etude.watch.reconciliation import activation_of
from etude.watch.tapped_forward import as_read, dtype_of


@dataclass(frozen=True, eq=False)
class WeightedSum:
    """N inputs times N weights, plus a bias. Tensors are float64 and on the CPU."""

    inputs: Float[Tensor, " N"]
    weights: Float[Tensor, " N"]
    bias: float | None
    seen: float  # the sum in the forward pass
    dtype: Dtype = "fp32"  # of the product

    @property
    def terms(self) -> Float[Tensor, " N"]:
        """Each input times its weight."""
        return self.inputs * self.weights

    @property
    def order(self) -> Int[Tensor, " N"]:
        """Indices of the inputs, by size of their terms, largest first."""
        return self.terms.abs().argsort(descending=True, stable=True)

    @property
    def total(self) -> float:
        """The sum of all terms and the bias."""
        return float(self.terms.sum()) + (self.bias or 0.0)

    @property
    def difference(self) -> float:
        """:attr:`total` minus the sum in the forward pass."""
        return self.total - self.seen

    def lines(self, count: int = 3) -> list[str]:
        """Return the largest terms, the rest together, the bias and the sum, as lines."""
        terms, order = self.terms, self.order
        shown = [
            f"input {i:<5} {float(self.inputs[i]):+.4g} * {float(self.weights[i]):+.4g} = {float(terms[i]):+.4g}"
            for i in order[:count].tolist()
        ]
        others = len(terms) - len(shown)
        if others:
            shown.append(f"{others} others {float(terms[order[count:]].sum()):+.4g}")
        bias = "no bias" if self.bias is None else f"bias {self.bias:+.4g}"
        rounded = ", which rounds to bf16" if self.dtype == "bf16" else ""
        return [
            *shown,
            f"{bias}; sum {self.total:+.6g} ({self.difference:+.1e} off the forward pass{rounded})",
        ]


@dataclass(frozen=True, eq=False)
class NodeSum:
    """A neuron at one token.

    Attributes:
        token_ids: what the network had read, the token itself last.
        gate: the sum that the activation function reads.
        up: the sum that the gate multiplies; None without a gate.
        function: the activation function's name.
        activated: its value at ``gate.total``.
        seen: the neuron's activation (after the gate) in the forward pass.
    """

    token_ids: tuple[int, ...]
    text: str  # of the token
    gate: WeightedSum
    up: WeightedSum | None
    function: str
    activated: float
    seen: float

    @property
    def post(self) -> float:
        """The neuron's activation: ``activated``, times ``up.total`` if it is gated."""
        return self.activated * (1.0 if self.up is None else self.up.total)

    @property
    def difference(self) -> float:
        """:attr:`post` minus the activation in the forward pass."""
        return self.post - self.seen

    def __repr__(self) -> str:
        lines = [f"at token {self.text!r}, position {len(self.token_ids) - 1}"]
        lines += [f"  {line}" for line in self.gate.lines()]
        lines.append(f"{self.function}({self.gate.total:+.6g}) = {self.activated:+.6g}")
        if self.up is not None:
            lines += [f"  up: {line}" for line in self.up.lines()]
        product = "" if self.up is None else f"{self.activated:+.6g} * {self.up.total:+.6g} = "
        lines.append(f"activation {product}{self.post:+.6g} ({self.difference:+.1e} off the forward pass)")
        return "\n".join(lines)


def node_sum(
    model: LanguageModel,
    node_layer: NodeLayer,
    unit: int,
    activations: dict[str, Tensor],
    token_ids: tuple[int, ...],
    text: str,
    dropout: Dropout | None = None,
) -> NodeSum:
    """Return a neuron at the last of ``token_ids``.

    ``activations``, (1, T, ...) each, are of a row that begins with them, computed with ``dropout``. Where that drops
    inputs of a low-rank branch, the weights are those of this position.
    """
    position = len(token_ids) - 1

    def summed(linear: str, leaf: str) -> WeightedSum:
        weights, bias = node_layer.incoming(model, linear, unit)
        seen = activations[f"{node_layer.path}.{leaf}"][0, position, unit]
        inputs = activations[node_layer.reads][0, position].detach()
        dropped = dropped_product(
            node_layer.linear(model, linear), dropout, activations[node_layer.reads].shape[1]
        )
        if dropped is not None:
            product, change = dropped
            weights = weights + product[unit] * change[position]

        read = partial(as_read, by=seen)
        read_bias = None if bias is None else float(read(torch.tensor(bias)))
        return WeightedSum(read(inputs), read(weights), read_bias, float(seen), dtype_of(seen))

    gate = summed(node_layer.gate, "pre")
    up = None if node_layer.up is None else summed(node_layer.up, "pre_linear")
    activated = activation_of(model)(torch.tensor(gate.total, dtype=torch.float64))
    seen = float(activations[f"{node_layer.path}.post"][0, position, unit])
    return NodeSum(token_ids, text, gate, up, model.config.hidden_act, float(activated), seen)
