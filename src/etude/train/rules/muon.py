"""Muon: momentum whose direction is orthogonalised before it is applied (Jordan et al. 2024).

For a hidden matrix W of shape (rows, columns) with gradient G::

    M      <- momentum * M + (1 - momentum) * G
    U      =  orthogonalize(momentum * M + (1 - momentum) * G)          (Nesterov)
    W      <- W - lr * weight_decay * W - lr * sqrt(max(1, rows / columns)) * U

The factor gives every update the same spectral norm relative to the activations that the matrix maps, at any width. So
a rate found on a narrow network holds for a wide one (Yang et al. 2023, "A spectral condition for feature learning").

A matrix may be divided into blocks of rows or of columns (``row_blocks``, ``column_blocks``), each orthogonalised
separately: the heads of a projection, or groups of an MLP's neurons. These are separate maps, and their products cost
a fraction: those of a whole (R, C) matrix grow with R^2 C.

newton_schulz.py has the orthogonalisation. In fp32 (on a CPU) it iterates on the Gram matrices of all blocks of a size
together; in bf16 (on a GPU) on the blocks themselves. Blocks with more rows than columns are transposed first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from etude.config import ResolvedTrain
from etude.device import Device
from etude.model.config import ModelConfig
from etude.model.pieces import is_piece, local
from etude.train.rules.blocks import by_shape, wide_blocks
from etude.train.rules.contract import (
    Definition,
    Explanation,
    Hyperparameters,
    Parameter,
    Rate,
    Tolerances,
    UpdateRule,
    weight_decay_of,
)
from etude.train.rules.muon_pieces import PieceUpdate, apply_to_pieces, sums_grams
from etude.train.rules.newton_schulz import orthogonalize, orthogonalizing_factors
from etude.train.rules.terms import DIRECTION, NumberUpdate

LARGEST_WHOLE = 128
"""Largest smaller side of a matrix that is not divided: larger ones cost more time than they gain (notebook)."""
LARGEST_BLOCK, SMALLEST_BLOCK = 64, 32
"""Sides of the blocks of a larger matrix."""
BUFFER = "momentum_buffer"
"""The state's only leaf."""
ORTHOGONAL = "orthogonal"
"""Symbol of the term that is an element of the orthogonalised matrix."""


def update_scale(rows: int, columns: int, row_blocks: int = 1, column_blocks: int = 1) -> float:
    """Return the factor of the orthogonalised (rows, columns) matrix: outputs then change by the size of the inputs.

    For a matrix in N blocks it is the factor of each block. With a factor N^-1/2 the blocks together never change an
    output more than the whole matrix would; with 1 they reach that only if they are uncorrelated. N^-1/4, between the
    two, changes activations by the same amount at every width (the coordinate check in the tests).
    """
    whole = math.sqrt(max(1.0, rows / columns))
    in_blocks = row_blocks * column_blocks * min(rows // row_blocks, columns // column_blocks)
    return (
        whole * math.sqrt(min(rows, columns) / in_blocks) / math.sqrt(math.sqrt(row_blocks * column_blocks))
    )


class Muon(torch.optim.Optimizer):
    """Muon over two-dimensional parameters, with one fp32 ``momentum_buffer`` for each.

    A parameter group may set ``row_blocks`` or ``column_blocks``: its matrices are then updated in that many blocks.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        defaults |= {"row_blocks": 1, "column_blocks": 1}
        super().__init__(params, defaults)
        self.dtype = dtype  # of the Newton-Schulz iteration
        for group in self.param_groups:
            if any(parameter.ndim != 2 for parameter in group["params"]):
                raise ValueError("Muon takes matrices only; give vectors and embeddings to AdamW")
            blocks = (group["row_blocks"], group["column_blocks"])
            for parameter in group["params"]:
                if any(size % count for size, count in zip(parameter.shape, blocks, strict=True)):
                    raise ValueError(f"a matrix {tuple(parameter.shape)} does not divide into {blocks}")

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Apply one update from the parameters' ``grad``."""
        updates: list[_Update] = []
        pieces: list[PieceUpdate] = []
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            blocks = (group["row_blocks"], group["column_blocks"])
            for parameter, direction in zip(
                parameters, self._directions(parameters, group["momentum"]), strict=True
            ):
                rate = group["lr"] * update_scale(parameter.shape[0], parameter.shape[1], *blocks)
                decay_factor = 1 - group["lr"] * group["weight_decay"]
                if is_piece(parameter):
                    pieces.append(PieceUpdate(parameter, direction, blocks, rate, decay_factor))
                    continue
                updates.append(
                    _Update(
                        wide_blocks(parameter, *blocks), wide_blocks(direction, *blocks), rate, decay_factor
                    )
                )
        if pieces:
            apply_to_pieces(pieces)
        if self.dtype == torch.float32:
            _apply_through_gram_matrices(updates)
        else:
            _apply_directly(updates, self.dtype)

    def _directions(self, parameters: list[Tensor], momentum: float) -> Sequence[Tensor]:
        """Update the momentum buffers; return Nesterov's directions, one more momentum step with the same gradient."""
        if not parameters:
            return []
        gradients = [local(parameter.grad) for parameter in parameters if parameter.grad is not None]
        buffers = [local(self._momentum_buffer(parameter)) for parameter in parameters]
        torch._foreach_lerp_(buffers, gradients, 1 - momentum)
        return torch._foreach_lerp(gradients, buffers, momentum)

    def _momentum_buffer(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if BUFFER not in state:
            state[BUFFER] = torch.zeros_like(parameter)
        buffer: Tensor = state[BUFFER]
        return buffer


@dataclass(frozen=True, slots=True)
class _Update:
    """weights <- decay_factor * weights - rate * orthogonalised direction, for wide blocks (N, R, C) with R <= C."""

    weights: Tensor
    direction: Tensor
    rate: float
    decay_factor: float


def _apply_through_gram_matrices(updates: Sequence[_Update]) -> None:
    """Iterate on Gram matrices: the large matrices are read twice and written once, instead of 15 passes over them."""
    grams = [torch.bmm(update.direction, update.direction.mT) for update in updates]  # (N, R, R)
    factors = by_shape(grams, orthogonalizing_factors)
    for update, factor in zip(updates, factors, strict=True):
        update.weights.baddbmm_(factor, update.direction, beta=update.decay_factor, alpha=-update.rate)


def _apply_directly(updates: Sequence[_Update], dtype: torch.dtype) -> None:
    """Iterate on the blocks themselves, in ``dtype``."""
    directions = [update.direction.to(dtype) for update in updates]
    for update, orthogonal in zip(updates, by_shape(directions, orthogonalize), strict=True):
        update.weights.mul_(update.decay_factor).add_(orthogonal, alpha=-update.rate)


def blocks_of(parameter: Parameter, config: ModelConfig) -> tuple[int, int]:
    """Return the number of blocks of rows and of columns of a matrix; one of the two is 1.

    Queries, keys and values are divided by head. In wide networks, the matrices of an MLP are divided by groups of its
    neurons, and the output projection by groups of its inputs: the fewest groups of at most ``LARGEST_BLOCK``.
    """
    rows, columns = parameter.shape
    kind = parameter.name.split(".")[-2]
    if kind == "q_proj":
        return config.num_attention_heads, 1
    if kind in ("k_proj", "v_proj"):
        return config.num_key_value_heads, 1
    if kind in ("gate_proj", "up_proj"):
        return _fewest_blocks(rows, columns), 1
    if kind in ("o_proj", "down_proj"):
        return 1, _fewest_blocks(columns, rows)
    return 1, 1


def _fewest_blocks(divided: int, other: int) -> int:
    """Return the fewest equal blocks of a useful size that divide a side; 1 if no number does."""
    if min(divided, other) <= LARGEST_WHOLE:
        return 1
    counts = range(-(-divided // LARGEST_BLOCK), divided // SMALLEST_BLOCK + 1)
    return next((count for count in counts if divided % count == 0), 1)


def _peak_rate(settings: ResolvedTrain) -> float:
    """Return the peak learning rate, which the dial resolves for every run that uses this rule."""
    assert settings.muon_lr != "auto", "train.muon_lr was not resolved"
    return settings.muon_lr


class MuonRule(UpdateRule):
    """Muon for the matrices between the embedding and the output.

    These map activations to activations, whose change the spectral norm of an update measures. Rows of an embedding or
    of the output matrix belong to single tokens instead. The learning rate is the spectral norm of the update of a
    square matrix, at any width.
    """

    name = "muon"
    title = "Muon"
    summary = (
        "Under Muon a weight does not move alone: the whole matrix of momenta is made orthogonal, and this weight "
        "gets its element."
    )
    moves = frozenset({"hidden"})
    rates: ClassVar = {
        "train.muon_lr": Rate(0.025, "swept; an update's spectral norm, the same at any width")
    }
    swept = True
    # The iteration amplifies small singular values, and their rounding errors, by up to 485 (3.4445^5).
    tolerances = Tolerances(
        update=1e-3, device={"fp32": 5e-4, "bf16": 0.4}, device_scale={"fp32": 2e-5, "bf16": 0.02}
    )
    whole = (ORTHOGONAL,)

    def options(self, parameter: Parameter, settings: ResolvedTrain, config: ModelConfig) -> dict[str, Any]:
        rows, columns = blocks_of(parameter, config)
        return {
            "lr": _peak_rate(settings),
            "weight_decay": weight_decay_of(parameter, settings),
            "momentum": settings.momentum,
            "row_blocks": rows,
            "column_blocks": columns,
        }

    def optimizer(
        self, groups: Sequence[dict[str, Any]], settings: ResolvedTrain, device: Device
    ) -> torch.optim.Optimizer:
        # A direction needs only the precision of bf16, but on a CPU bf16 saves no time here.
        dtype = torch.bfloat16 if device.dtype == "bf16" and device.kind == "cuda" else torch.float32
        return Muon(groups, _peak_rate(settings), dtype=dtype)

    def cut(self, parameter: Parameter, config: ModelConfig) -> int:
        blocks = blocks_of(parameter, config)
        return next((cut for cut in (1, 0) if sums_grams(parameter.shape, blocks, cut)), 0)

    def schedule(self, options: dict[str, Any], momentum: float) -> None:
        options["momentum"] = momentum

    def hyperparameters(self, options: Mapping[str, Any], shape: Sequence[int]) -> Hyperparameters:
        rows, columns = options["row_blocks"], options["column_blocks"]
        extra = {
            "row_blocks": rows,
            "column_blocks": columns,
            "scale": update_scale(shape[0], shape[1], rows, columns),
        }
        return Hyperparameters(
            self.name, options["lr"], options["weight_decay"], momentum=options["momentum"], extra=extra
        )

    def state_shapes(self, shape: Sequence[int]) -> dict[str, tuple[int, ...]]:
        return {BUFFER: tuple(shape)}

    def definition(self, gradient: Tensor, state: Mapping[str, Tensor], used: Hyperparameters) -> Definition:
        buffer = torch.lerp(state[BUFFER], gradient, 1 - used.momentum)
        ahead = torch.lerp(gradient, buffer, used.momentum)
        blocks = int(used.extra["row_blocks"]), int(used.extra["column_blocks"])
        direction = torch.empty_like(ahead)
        wide_blocks(direction, *blocks).copy_(orthogonalize(wide_blocks(ahead, *blocks)))
        return Definition(used.lr * used.extra["scale"] * direction, {BUFFER: buffer})

    def terms(self, number: NumberUpdate) -> None:
        used, g = number.used, number.gradient
        mu, blocks = used.momentum, used.extra["row_blocks"] * used.extra["column_blocks"]
        momentum = number.term(
            "momentum", "M, the momentum", mu * number.before(BUFFER) + (1 - mu) * g, leaf=BUFFER
        )
        number.term("ahead", "a step ahead", mu * momentum + (1 - mu) * g)
        parts = "" if blocks == 1 else f", in {blocks:.0f} blocks"
        orthogonal = number.term_of_whole(
            ORTHOGONAL,
            "element of the orthogonal matrix",
            f"a weight does not move alone: the whole matrix of these is made orthogonal{parts}",
        )
        number.term(
            DIRECTION, "direction, with the factor for the matrix's shape", used.extra["scale"] * orthogonal
        )

    def of_whole(self, moved: Tensor, used: Hyperparameters) -> dict[str, Tensor]:
        return {ORTHOGONAL: -moved / (used.lr * used.extra["scale"])}

    explanation = Explanation(
        picture=(
            "A choir in which a few voices drown the rest. The conductor keeps the tune but brings all voices to one "
            "loudness, so that the quiet ones are heard too."
        ),
        stops=(
            "The voices are not single weights but directions that the whole matrix can turn its inputs in; so the "
            "move of one weight cannot be computed without all the others."
        ),
        words=(
            "Muon is the rule for the matrices inside the layers; AdamW moves the rest. It keeps one memory, the "
            "momentum: a running mean of the gradients. Before the move it makes that matrix nearly orthogonal: it "
            "keeps the directions and makes them all about equally strong. This takes a handful of matrix products, "
            "an iteration named after Newton and Schulz. A factor for the matrix's shape keeps moves alike at every "
            "width."
        ),
        formulas=(
            "M ← μ M + (1 - μ) G",
            "D = μ M + (1 - μ) G",
            "D = U S Vᵀ ⇒ O ≈ U Vᵀ",
            "W ← W - η λ W - η s O",
        ),
        symbols=(
            "G: gradient of a matrix W. M: momentum, μ its length of memory. D: the direction, looking one move ahead. "
            "U S V: its directions and their strengths. s: the factor of the shape. η, λ: learning rate and decay."
        ),
        code=(Muon.step, orthogonalize, update_scale),
    )


RULE = MuonRule()
