"""The neurons of one layer in one training step, over the whole batch: how the gradient of each weight arises.

The gradient of a weight is a sum over all tokens of the batch: the gradient at the neuron's sum, times the input that
the weight multiplies. Most of these terms cancel; the rest moves the weight.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from etude.device import free_memory_bytes
from etude.errors import InputError
from etude.model.language_model import LOGITS
from etude.model.lora import dropped_product
from etude.model.nodes import NodeLayer
from etude.watch.node_layers import find_node_layer
from etude.watch.opened_step import OpenedRow, OpenedStep
from etude.watch.reconciliation import activation_of
from etude.watch.tapped_forward import as_read, dtype_of
from etude.watch.terms import NodeSum, node_sum


@dataclass(frozen=True)
class GradientTerm:
    """What one token of the batch contributes to the gradient of a weight."""

    row: int
    position: int
    token_id: int
    value: float  # the input that the weight multiplies
    error: float  # the gradient at the neuron's sum

    @property
    def amount(self) -> float:
        """The contribution. A positive one pushes the weight down, since the loss rises with the weight."""
        return self.value * self.error


@dataclass(frozen=True, eq=False)
class GradientTerms:
    """The contribution of every token of the batch to the gradient of one weight.

    Attributes:
        inputs, errors: (R, T) for every token of the batch, float64; rounded to bf16 where the product is in bf16.
        rounded: (R, T) the size of the numbers that were rounded on the way to each error, float64: the products that
            it sums; its change when the neuron's sum changes by its own size; and numbers of about 1 in the slope of
            the activation function (in bf16 these stay fp32, except for tanh). Where this is much larger than the
            error, the same step computed in another order has an error that differs by more than its own rounding.
        gradient: as the training path computed it.
    """

    inputs: Float[Tensor, "R T"]
    errors: Float[Tensor, "R T"]
    rounded: Float[Tensor, "R T"]
    token_ids: Tensor
    gradient: float

    @property
    def terms(self) -> Float[Tensor, "R T"]:
        """(R, T) each token's contribution to the gradient."""
        return self.inputs * self.errors

    @property
    def total(self) -> float:
        return float(self.terms.sum())

    def largest(self, count: int = 12) -> list[GradientTerm]:
        """Return the ``count`` largest contributions, of either sign."""
        terms, width = self.terms.flatten(), self.inputs.shape[1]
        order = terms.abs().argsort(descending=True, stable=True)[:count].tolist()
        return [
            GradientTerm(i // width, i % width, int(flat), float(value), float(error))
            for i, flat, value, error in (
                (
                    i,
                    self.token_ids.flatten()[i],
                    self.inputs.flatten()[i],
                    self.errors.flatten()[i],
                )
                for i in order
            )
        ]


@dataclass(frozen=True, eq=False)
class ErrorOfNode:
    """How the gradient at a neuron arises, at one token.

    Attributes:
        outgoing: (M,) its outgoing weights, float64; rounded where the product is in bf16. With dropout in a low-rank
            branch, those of this token.
        arriving: (M,) the gradient at the numbers it writes to (after dropout), likewise.
        at_activation: the sum of their products, as the backward pass computed it.
        slope: derivative of the activation with respect to the neuron's sum.
        at_sum: at_activation times the slope, as the backward pass computed it.
    """

    outgoing: Float[Tensor, " M"]
    arriving: Float[Tensor, " M"]
    at_activation: float
    slope: float
    at_sum: float


class LayerInStep:
    """All rows of an opened step's batch, restricted to what one layer of neurons reads and writes.

    Raises:
        InputError: no such layer, or too little memory.
    """

    def __init__(self, opened: OpenedStep, layer: str) -> None:
        self.opened = opened
        self.node_layer: NodeLayer = find_node_layer(opened.model, layer)
        self._require_room()
        self._wanted = {*self.node_layer.watched, self.node_layer.added_to}
        self.rows = [self._row(number) for number in range(opened.num_rows)]

    def sum(self, unit: int, row: int, position: int, text: str = "") -> NodeSum:
        """Return what a neuron computes at a token of the batch (whose text is ``text``), term by term.

        Raises:
            InputError: no such neuron, row or position.
        """
        self.node_layer.require_unit(unit)
        opened_row, at = self.row(row), self.place(row, position)
        ids = tuple(opened_row.inputs[: at + 1].tolist())
        dropout = self.opened.read(row).dropout
        return node_sum(self.opened.model, self.node_layer, unit, opened_row.activations, ids, text, dropout)

    def row(self, row: int) -> OpenedRow:
        """Return a row.

        Raises:
            InputError: the batch has no such row.
        """
        if not 0 <= row < len(self.rows):
            raise InputError(f"the batch has rows 0 to {len(self.rows) - 1}, not {row}")
        return self.rows[row]

    def place(self, row: int, position: int) -> int:
        """Return ``position`` after checking that the row has it.

        Raises:
            InputError: the row has no such position.
        """
        count = len(self.row(row).inputs)
        if not 0 <= position < count:
            raise InputError(f"a row has positions 0 to {count - 1}, not {position}")
        return position

    @torch.no_grad()
    def error(self, unit: int, row: int, position: int) -> ErrorOfNode:
        """Return how the gradient at a neuron arises, at one token.

        Raises:
            InputError: no such neuron, row or position.
        """
        self.node_layer.require_unit(unit)
        opened_row, node_layer, at = self.row(row), self.node_layer, self.place(row, position)
        at_activation = opened_row.gradients[f"{node_layer.path}.post"][0, at, unit]
        slope, _, gated_by = self._slopes(opened_row, unit)
        return ErrorOfNode(
            as_read(self._outgoing(row, unit).expand(len(opened_row.inputs), -1)[at], by=at_activation),
            self._arriving(row, unit)[at],
            float(at_activation),
            float(slope[at] * gated_by[at]),
            float(opened_row.gradients[f"{node_layer.path}.pre"][0, at, unit]),
        )

    def gradient_terms(self, unit: int, number: int) -> GradientTerms:
        """Return the contributions of all tokens to the gradient of the weight for input ``number`` of a neuron.

        Raises:
            InputError: no such neuron or input.
        """
        node_layer = self.node_layer
        node_layer.require_unit(unit)
        weights = self.opened.gradients[f"{node_layer.gate}.weight"]
        if not 0 <= number < weights.shape[1]:
            raise InputError(
                f"a neuron of {node_layer.path} has inputs 0 to {weights.shape[1] - 1}, not {number}"
            )
        errors = torch.stack([row.gradients[f"{node_layer.path}.pre"][0, :, unit] for row in self.rows])
        inputs = torch.stack([row.activations[node_layer.reads][0, :, number].detach() for row in self.rows])
        return GradientTerms(
            as_read(inputs, by=errors),
            as_read(errors, by=errors),
            torch.stack([self._rounded(row, unit) for row in range(len(self.rows))]),
            torch.stack([row.inputs for row in self.rows]).cpu(),
            float(weights[unit, number]),
        )

    def _arriving(self, row: int, unit: int) -> Float[Tensor, "T M"]:
        """Return the gradients at the numbers that the neuron writes to, as its products read them."""
        by = self.rows[row].gradients[f"{self.node_layer.path}.post"]
        arriving = as_read(self.rows[row].gradients[self.node_layer.added_to][0], by=by)
        arriving = arriving * self._dropout_factors(row, unit)
        if (
            self.node_layer.drops_units
        ):  # the backward product precedes dropout, so it reads unrounded numbers
            return arriving
        return as_read(arriving, by=by)

    def _rounded(self, row: int, unit: int) -> Float[Tensor, " T"]:
        """Return `GradientTerms.rounded` for one row."""
        opened_row, node_layer = self.rows[row], self.node_layer
        slope, bend, gated_by = self._slopes(opened_row, unit)
        at_activation = opened_row.gradients[f"{node_layer.path}.post"][0, :, unit]
        outgoing = as_read(self._outgoing(row, unit), by=at_activation).abs()
        arriving = self._arriving(row, unit).abs()
        products = arriving @ outgoing if outgoing.dim() == 1 else (arriving * outgoing).sum(-1)
        ones = float(dtype_of(at_activation) == "fp32" or self.opened.model.config.hidden_act == "tanh")
        size = products * slope.abs() + at_activation.cpu().double().abs() * (bend.abs() + ones)
        return size * gated_by.abs()

    @torch.no_grad()
    def _outgoing(self, row: int, unit: int) -> Float[Tensor, "*T M"]:
        """Return the outgoing weights: (M,), or (T, M) where dropout in a low-rank branch changes them by position."""
        model, node_layer, dropout = self.opened.model, self.node_layer, self.opened.read(row).dropout
        outgoing = node_layer.outgoing(model, unit)
        linear, context = node_layer.linear(model, node_layer.out), len(self.rows[row].inputs)
        dropped = dropped_product(linear, dropout, context)
        if dropped is None:
            return outgoing
        product, change = dropped
        return outgoing + product[:, unit] * change[:, unit, None]

    def _slopes(self, row: OpenedRow, unit: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return (slope, bend, gated_by), (T,) each, in float64.

        ``slope`` is the derivative of the activation function at the neuron's sum, ``bend`` the change of the slope
        when the sum changes by its own size, and ``gated_by`` what the slope is multiplied by (1 without a gate).
        """
        sums = row.activations[f"{self.node_layer.path}.pre"][0, :, unit].detach().cpu().double()
        with torch.enable_grad():
            before = sums.clone().requires_grad_()
            activated = activation_of(self.opened.model)(before).sum()
            (slope,) = torch.autograd.grad(activated, before, create_graph=True)
            (bend,) = torch.autograd.grad(slope.sum(), before)
        gated_by = torch.ones_like(sums)
        if self.node_layer.up is not None:
            gated_by = (
                row.activations[f"{self.node_layer.path}.pre_linear"][0, :, unit].detach().cpu().double()
            )
        return slope.detach(), bend * sums, gated_by

    def _dropout_factors(self, row: int, unit: int) -> Tensor | float:
        """Return dropout's factors on the numbers the neuron writes to; the gradient passes through the same ones."""
        dropout = self.opened.read(row).dropout
        if dropout is None or dropout.keep_mask is None:
            return 1.0
        keep_mask = dropout.keep_mask[
            self.node_layer.dropout_place, 0
        ]  # (T, M), or (T, F) where the units are dropped
        keep_mask = keep_mask[:, unit, None] if self.node_layer.drops_units else keep_mask
        return keep_mask.cpu() * dropout.scale

    def _row(self, number: int) -> OpenedRow:
        row = self.opened.row(number, self._wanted.__contains__)
        row.parameter_gradients.clear()  # large, and not needed: they cover one row only
        if number and self.node_layer.added_to != LOGITS:
            row.activations.pop(LOGITS, None)  # (T, V): as large as all the rest
            row.gradients.pop(LOGITS, None)
        return row

    def _require_room(self) -> None:
        opened, node_layer = self.opened, self.node_layer
        weights = opened.gradients[f"{node_layer.gate}.weight"]
        tokens = sum(part.inputs.numel() for part in opened.batch)
        needed = 4 * tokens * (weights.shape[1] * 4 + 6 * weights.shape[0])
        free = free_memory_bytes(opened.era.plan.device.kind)
        if free is not None and needed > free:
            raise InputError(
                f"one layer of the whole batch takes {needed / 2**30:,.1f} GiB, and {free / 2**30:,.1f} GiB are free: "
                "close other programs, or look at single tokens"
            )
