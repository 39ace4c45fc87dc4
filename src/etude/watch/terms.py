"""What a node computes at one token, term by term: inputs times weights, the bias, their sum, and what follows.

Everything is summed in float64 from the numbers that the forward pass had, and held against what it made of them. A
product in bf16 rounds both of its factors to 8 bits first: then the numbers here are the rounded ones, and what the
forward pass made of their sum, which it rounds once more, is up to 2^-8 of itself away.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from etude.device import Dtype
from etude.model.language_model import LanguageModel
from etude.model.nodes import NodeLayer
from etude.watch.forward import as_read, dtype_of
from etude.watch.reconciliation import activation_of


@dataclass(frozen=True, eq=False)
class WeightedSum:
    """N inputs times N weights, plus a bias. Tensors are float64 and on the CPU."""

    inputs: Float[Tensor, " N"]
    weights: Float[Tensor, " N"]
    bias: float | None
    seen: float  # the sum as the forward pass had it
    dtype: Dtype = "fp32"  # of the product

    @property
    def terms(self) -> Float[Tensor, " N"]:
        """Each input times its weight."""
        return self.inputs * self.weights

    @property
    def order(self) -> Int[Tensor, " N"]:
        """Numbers of the inputs, the largest term (of either sign) first."""
        return self.terms.abs().argsort(descending=True, stable=True)

    @property
    def total(self) -> float:
        """All terms and the bias."""
        return float(self.terms.sum()) + (self.bias or 0.0)

    @property
    def difference(self) -> float:
        """Between :attr:`total` and what the forward pass had."""
        return self.total - self.seen

    def lines(self, count: int = 3) -> list[str]:
        """The largest terms, the others together, the bias, the sum."""
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
            f"{bias}; sum {self.total:+.6g} (forward pass{rounded}: {self.difference:+.1e} off)",
        ]


@dataclass(frozen=True, eq=False)
class NodeSum:
    """A node at one token.

    Attributes:
        token_ids: what the network had read there, the token itself last.
        gate: the sum that the activation function reads.
        up: the sum that is let through, None where nothing is gated.
        function: the activation function's name.
        activated: its value of ``gate.total``.
        seen: the node's activation (behind the gate) as the forward pass had it.
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
        """The node's activation: ``activated``, times the sum that is let through if it is gated."""
        return self.activated * (1.0 if self.up is None else self.up.total)

    @property
    def difference(self) -> float:
        """Between :attr:`post` and what the forward pass had."""
        return self.post - self.seen

    def __repr__(self) -> str:
        lines = [f"at token {self.text!r}, position {len(self.token_ids) - 1}"]
        lines += [f"  {line}" for line in self.gate.lines()]
        lines.append(f"{self.function}({self.gate.total:+.6g}) = {self.activated:+.6g}")
        if self.up is not None:
            lines += [f"  up: {line}" for line in self.up.lines()]
        product = "" if self.up is None else f"{self.activated:+.6g} * {self.up.total:+.6g} = "
        lines.append(f"activation {product}{self.post:+.6g} (forward pass: {self.difference:+.1e} off)")
        return "\n".join(lines)


def node_sum(
    model: LanguageModel,
    node_layer: NodeLayer,
    unit: int,
    activations: dict[str, Tensor],
    token_ids: tuple[int, ...],
    text: str,
) -> NodeSum:
    """A node at the last of ``token_ids``; ``activations``, each (1, T, ...), are of a row that begins with them."""
    position = len(token_ids) - 1

    def summed(linear: str, leaf: str) -> WeightedSum:
        weights, bias = node_layer.incoming(model, linear, unit)
        seen = activations[f"{node_layer.path}.{leaf}"][0, position, unit]
        inputs = activations[node_layer.reads][0, position].detach()

        read = partial(as_read, by=seen)
        read_bias = None if bias is None else float(read(torch.tensor(bias)))
        return WeightedSum(read(inputs), read(weights), read_bias, float(seen), dtype_of(seen))

    gate = summed(node_layer.gate, "pre")
    up = None if node_layer.up is None else summed(node_layer.up, "pre_linear")
    activated = activation_of(model)(torch.tensor(gate.total, dtype=torch.float64))
    seen = float(activations[f"{node_layer.path}.post"][0, position, unit])
    return NodeSum(token_ids, text, gate, up, model.config.hidden_act, float(activated), seen)
