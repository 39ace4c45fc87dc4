"""The nodes of one layer in one step of training, over the whole batch: how each weight's gradient is made.

The gradient of a weight is a sum over all tokens of the batch: the error at the node's sum, times the number that the
weight multiplies. Most of these pushes cancel; what is left moves the weight.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from etude.device import free_memory_bytes
from etude.errors import InputError
from etude.model.language_model import LOGITS
from etude.model.nodes import NodeLayer
from etude.watch.forward import as_read, dtype_of
from etude.watch.node_layers import find_node_layer
from etude.watch.opened_step import OpenedRow, OpenedStep
from etude.watch.reconciliation import activation_of
from etude.watch.terms import NodeSum, node_sum


@dataclass(frozen=True)
class Push:
    """What one token of the batch adds to a weight's gradient."""

    row: int
    position: int
    token_id: int
    value: float  # the number that the weight multiplies there
    error: float  # at the node's sum

    @property
    def amount(self) -> float:
        """Above zero it pushes the weight down, for the loss grows with the weight."""
        return self.value * self.error


@dataclass(frozen=True, eq=False)
class TugOfWar:
    """All pushes on one weight.

    Attributes:
        inputs, errors: (R, T) of every token of the batch, float64; rounded where the product is in bf16.
        rounded: (R, T) the size of what was rounded to make each error, float64: the products that it adds up; how far
            it follows a change of the node's sum as large as the sum itself; and numbers of about one that its slope
            is made of (in bf16 they stay fp32, but for those of tanh). Where this is much larger than the error, the
            same step in another order of computing has an error that is off by more than a rounding of itself.
        gradient: as the real path had it.
    """

    inputs: Float[Tensor, "R T"]
    errors: Float[Tensor, "R T"]
    rounded: Float[Tensor, "R T"]
    token_ids: Tensor
    gradient: float

    @property
    def pushes(self) -> Float[Tensor, "R T"]:
        """Each token's share of the gradient."""
        return self.inputs * self.errors

    @property
    def total(self) -> float:
        return float(self.pushes.sum())

    def largest(self, count: int = 12) -> list[Push]:
        """The strongest, of either sign."""
        pushes, width = self.pushes.flatten(), self.inputs.shape[1]
        order = pushes.abs().argsort(descending=True, stable=True)[:count].tolist()
        return [
            Push(i // width, i % width, int(flat), float(value), float(error))
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
    """How the error at a node is made, at one token.

    Attributes:
        outgoing: (M,) the weights that it writes with, float64; rounded where the product is in bf16.
        arriving: (M,) the error at the numbers that it writes to (behind dropout), likewise.
        at_activation: their products' sum as the backward pass had it.
        slope: how much the activation moves with the node's sum.
        at_sum: as the backward pass had it: at_activation times the slope.
    """

    outgoing: Float[Tensor, " M"]
    arriving: Float[Tensor, " M"]
    at_activation: float
    slope: float
    at_sum: float


class LayerInStep:
    """All rows of an opened step's batch, as far as one layer of nodes goes.

    Raises:
        InputError: no such layer, or not the memory for it.
    """

    def __init__(self, opened: OpenedStep, layer: str) -> None:
        self.opened = opened
        self.node_layer: NodeLayer = find_node_layer(opened.model, layer)
        self._require_room()
        self._wanted = {*self.node_layer.watched, self.node_layer.added_to}
        self.rows = [self._row(number) for number in range(opened.num_rows)]

    def sum(self, unit: int, row: int, position: int, text: str = "") -> NodeSum:
        """What a node computes at a token of the batch (whose text is ``text``), term by term.

        Raises:
            InputError: no such node, row or position.
        """
        self.node_layer.require_unit(unit)
        found, place = self.row(row), self.place(row, position)
        ids = tuple(found.inputs[: place + 1].tolist())
        return node_sum(self.opened.model, self.node_layer, unit, found.activations, ids, text)

    def row(self, row: int) -> OpenedRow:
        """Raises InputError when the batch has no such row."""
        if not 0 <= row < len(self.rows):
            raise InputError(f"the batch has rows 0 to {len(self.rows) - 1}, not {row}")
        return self.rows[row]

    def place(self, row: int, position: int) -> int:
        """``position``, when the row has it; else InputError."""
        count = len(self.row(row).inputs)
        if not 0 <= position < count:
            raise InputError(f"a row has positions 0 to {count - 1}, not {position}")
        return position

    @torch.no_grad()
    def error(self, unit: int, row: int, position: int) -> ErrorOfNode:
        """How the error at a node is made, at one token.

        Raises:
            InputError: no such node, row or position.
        """
        self.node_layer.require_unit(unit)
        found, node_layer, place = self.row(row), self.node_layer, self.place(row, position)
        at_activation = found.gradients[f"{node_layer.path}.post"][0, place, unit]
        slope, _, through = self._slopes(found, unit)
        return ErrorOfNode(
            as_read(node_layer.outgoing(self.opened.model, unit), by=at_activation),
            self._arriving(row, unit)[place],
            float(at_activation),
            float(slope[place] * through[place]),
            float(found.gradients[f"{node_layer.path}.pre"][0, place, unit]),
        )

    def tug_of_war(self, unit: int, number: int) -> TugOfWar:
        """The pushes of all tokens on the weight with which a node reads its input ``number``.

        Raises:
            InputError: no such node or input.
        """
        node_layer = self.node_layer
        node_layer.require_unit(unit)
        weights = self.opened.gradients[f"{node_layer.gate}.weight"]
        if not 0 <= number < weights.shape[1]:
            raise InputError(
                f"a node of {node_layer.path} has inputs 0 to {weights.shape[1] - 1}, not {number}"
            )
        errors = torch.stack([row.gradients[f"{node_layer.path}.pre"][0, :, unit] for row in self.rows])
        inputs = torch.stack([row.activations[node_layer.reads][0, :, number].detach() for row in self.rows])
        return TugOfWar(
            as_read(inputs, by=errors),
            as_read(errors, by=errors),
            torch.stack([self._rounded(row, unit) for row in range(len(self.rows))]),
            torch.stack([row.inputs for row in self.rows]).cpu(),
            float(weights[unit, number]),
        )

    def _arriving(self, row: int, unit: int) -> Float[Tensor, "T M"]:
        """The errors at the numbers that the node writes to, as its products read them."""
        by = self.rows[row].gradients[f"{self.node_layer.path}.post"]
        arriving = as_read(self.rows[row].gradients[self.node_layer.added_to][0], by=by)
        arriving = arriving * self._let_through(row, unit)
        if self.node_layer.drops_units:  # then the product comes before dropout on the way back
            return arriving
        return as_read(arriving, by=by)

    def _rounded(self, row: int, unit: int) -> Float[Tensor, " T"]:
        """Of the errors at a node's sum in a row: see `TugOfWar`."""
        found, node_layer = self.rows[row], self.node_layer
        slope, follows, through = self._slopes(found, unit)
        at_activation = found.gradients[f"{node_layer.path}.post"][0, :, unit]
        outgoing = as_read(node_layer.outgoing(self.opened.model, unit), by=at_activation)
        products = self._arriving(row, unit).abs() @ outgoing.abs()
        ones = float(dtype_of(at_activation) == "fp32" or self.opened.model.config.hidden_act == "tanh")
        size = products * slope.abs() + at_activation.cpu().double().abs() * (follows.abs() + ones)
        return size * through.abs()

    def _slopes(self, found: OpenedRow, unit: int) -> tuple[Tensor, Tensor, Tensor]:
        """At each position, in float64: the slope of the node's function at its sum; how much it would change with a
        change of the sum as large as the sum; and what the node lets through, by which the slope is multiplied."""
        sums = found.activations[f"{self.node_layer.path}.pre"][0, :, unit].detach().cpu().double()
        with torch.enable_grad():
            before = sums.clone().requires_grad_()
            made = activation_of(self.opened.model)(before).sum()
            (slope,) = torch.autograd.grad(made, before, create_graph=True)
            (bend,) = torch.autograd.grad(slope.sum(), before)
        through = torch.ones_like(sums)
        if self.node_layer.up is not None:
            through = (
                found.activations[f"{self.node_layer.path}.pre_linear"][0, :, unit].detach().cpu().double()
            )
        return slope.detach(), bend * sums, through

    def _let_through(self, row: int, unit: int) -> Tensor | float:
        """What dropout multiplied the numbers by that the node writes to: the error comes back through the same."""
        dropout = self.opened.read(row).dropout
        if dropout is None:
            return 1.0
        kept = dropout.keep_mask[
            self.node_layer.dropout_place, 0
        ]  # (T, M), or (T, F) where the units are dropped
        kept = kept[:, unit, None] if self.node_layer.drops_units else kept
        return kept.cpu() * dropout.scale

    def _row(self, number: int) -> OpenedRow:
        found = self.opened.row(number, self._wanted.__contains__)
        found.parameter_gradients.clear()  # large, and of one row only
        if number and self.node_layer.added_to != LOGITS:
            found.activations.pop(LOGITS, None)  # (T, V): as large as all the rest
            found.gradients.pop(LOGITS, None)
        return found

    def _require_room(self) -> None:
        opened, node_layer = self.opened, self.node_layer
        weights = opened.gradients[f"{node_layer.gate}.weight"]
        tokens = sum(part.inputs.numel() for part in opened.batch)
        needed = 4 * tokens * (weights.shape[1] * 4 + 6 * weights.shape[0])
        free = free_memory_bytes(opened.era.plan.device)
        if free is not None and needed > free:
            raise InputError(
                f"one layer of the whole batch takes {needed / 2**30:,.1f} GiB, and {free / 2**30:,.1f} GiB are free: "
                "close other programs, or look at single tokens"
            )
