"""The loss: cross-entropy of the predicted distributions and the next tokens, in nats.

``targets`` include the loss mask: ``IGNORE_INDEX`` where a token does not count (:mod:`etude.train.batch`).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from jaxtyping import Float, Int
from torch import Tensor

from etude.data.tokens.coverage import IGNORE_INDEX

LOGITS_AT_ONCE = 2**22
"""Larger tables of logits are computed in pieces: 16 MiB in fp32, about the size of a processor's cache."""
POSITIONS_AT_ONCE = 512
"""Smallest piece: below it, adding up the gradient of a large output matrix costs more than the logits."""
CACHED_LOGITS = 2**20
"""Logits of a large table that the loss converts and differentiates together: 4 MiB in fp32."""
MOST_LOGITS = 2**25
"""Largest piece of a lean loss: 128 MiB in fp32, 512 positions of a vocabulary of 65,536."""


def token_losses(logits: Float[Tensor, "B T V"], targets: Int[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """Return the cross-entropy of each position in nats, unweighted; 0 where the target is ``IGNORE_INDEX``.

    Computed in fp32; in float64 for float64 logits.
    """
    if logits.dtype == torch.float64:
        desired = logits.gather(-1, targets.clamp(min=0)[..., None])[..., 0]
        return (logits.logsumexp(-1) - desired) * (targets != IGNORE_INDEX)
    return F.cross_entropy(
        logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORE_INDEX, reduction="none"
    ).view_as(targets)


def summed_loss(
    hidden: Float[Tensor, "B T D"],
    targets: Int[Tensor, "B T"],
    weight: Float[Tensor, "V D"],
    bias: Float[Tensor, " V"] | None = None,
    *,
    token_weights: Float[Tensor, "B T"] | None = None,
    at_once: int | None = None,
    lean: bool = False,
) -> Float[Tensor, ""]:
    """Return the sum of :func:`token_losses` of the logits ``hidden @ weight.T + bias``, times ``token_weights``.

    It is a sum, not a mean. A step divides it by the number of trained tokens (or the sum of their weights) of its
    *whole* batch; only then is the gradient the same for every number of micro-batches (transformers PR 34191 reports
    the bug otherwise).

    Args:
        at_once: positions whose logits are computed, used and freed together; by default as ``LOGITS_AT_ONCE`` allows.
            Their gradient is computed in the same pass, so nothing is computed twice.
        lean: compute no logits of positions without a target, and never more than ``MOST_LOGITS`` at once. The sums
            are then rounded otherwise, so a run keeps to one of the two.
    """
    positions, wanted = hidden.flatten(0, 1), targets.flatten()  # (B T, D), (B T,)
    factors = None if token_weights is None else token_weights.flatten().to(weight.dtype)
    at_once = at_once or piece_positions(weight.shape[0], lean=lean)
    # A compiled graph cannot have a number of rows that depends on values.
    if lean and not torch.compiler.is_compiling():
        real = wanted != IGNORE_INDEX
        if not real.all():
            positions, wanted = positions[real], wanted[real]
            factors = None if factors is None else factors[real]
    if wanted.numel() > at_once:
        return _LossInPieces.apply(positions, wanted, weight, bias, factors, at_once)  # type: ignore[no-any-return, no-untyped-call]
    logits = F.linear(positions, weight, bias).to(weight.dtype)  # (B T, V), fp32 under autocast
    if factors is not None:
        losses = F.cross_entropy(logits, wanted, ignore_index=IGNORE_INDEX, reduction="none")
        return (losses * factors).sum()  # autocast would round a dot product to bf16
    return F.cross_entropy(logits, wanted, ignore_index=IGNORE_INDEX, reduction="sum")


def trained_losses(
    hidden: Float[Tensor, "B T D"],
    targets: Int[Tensor, "B T"],
    weight: Float[Tensor, "V D"],
    bias: Float[Tensor, " V"] | None = None,
    *,
    at_once: int,
) -> Float[Tensor, " N"]:
    """Return the cross-entropies of all trained tokens, in the order of rows and positions.

    Where they are more than ``at_once``, only the logits of so many positions are in memory together: the backward pass
    computes them again.
    """
    positions, wanted = hidden.flatten(0, 1), targets.flatten()  # (B T, D), (B T,)
    real = wanted != IGNORE_INDEX
    positions, wanted = positions[real], wanted[real]
    if len(wanted) <= at_once:
        return _cross_entropies(positions, wanted, weight, bias)
    pieces = zip(torch.split(positions, at_once), torch.split(wanted, at_once), strict=True)
    return torch.cat(
        [
            torch.utils.checkpoint.checkpoint(_cross_entropies, *piece, weight, bias, use_reentrant=False)
            for piece in pieces
        ]
    )


def _cross_entropies(positions: Tensor, wanted: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    logits = F.linear(positions, weight, bias).to(weight.dtype)  # (N, V), fp32 under autocast
    return F.cross_entropy(logits, wanted, reduction="none")


def piece_positions(vocab_size: int, *, lean: bool = False) -> int:
    """Return the number of positions whose logits are in memory together."""
    usual = max(POSITIONS_AT_ONCE, LOGITS_AT_ONCE // vocab_size)
    return min(usual, max(1, MOST_LOGITS // vocab_size)) if lean else usual


class _LossInPieces(torch.autograd.Function):
    """Summed cross-entropy of a linear layer, with the logits of only some positions in memory at a time.

    The forward pass also computes the gradients, while the logits of a piece exist; the backward pass scales them.
    Gradients of frozen parameters, and of hidden states below which nothing is trained, are not computed.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        targets: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        token_weights: Tensor | None,
        at_once: int,
    ) -> Tensor:
        total = torch.zeros((), dtype=weight.dtype, device=hidden.device)
        of_hidden, _, of_weight, of_bias, *_ = ctx.needs_input_grad
        hidden_gradients: list[Tensor] = []
        weight_gradient: Tensor | None = None
        bias_gradient = torch.zeros_like(bias) if bias is not None and of_bias else None
        matrix = _rounded(weight)
        for piece, (positions, wanted) in enumerate(
            zip(torch.split(hidden, at_once), torch.split(targets, at_once), strict=True)
        ):
            logits = F.linear(positions, matrix, bias)  # (N, V), bf16 under autocast
            factors = (
                None if token_weights is None else token_weights[piece * at_once : (piece + 1) * at_once]
            )
            loss, error = _loss_and_error(logits, wanted, factors, weight.dtype, bias_gradient)
            total = total + loss
            if of_hidden:
                hidden_gradients.append((error @ matrix).to(hidden.dtype))
            if of_weight:
                product = error.T @ positions
                # No zeros to begin with: the table has the size of the output matrix.
                weight_gradient = (
                    product.to(weight.dtype) if weight_gradient is None else weight_gradient.add_(product)
                )
        ctx.save_for_backward(
            torch.cat(hidden_gradients) if of_hidden else None, weight_gradient, bias_gradient
        )
        return total

    @staticmethod
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        # In place, since the largest has the size of the output matrix. PyTorch refuses a second backward pass then.
        hidden, weight, bias = (
            gradient if gradient is None else gradient.mul_(factor) for gradient in ctx.saved_tensors
        )
        return hidden, None, weight, bias, None, None


def _rounded(weight: Float[Tensor, "V D"]) -> Float[Tensor, "V D"]:
    """Return a matrix as products read it under autocast, which rounds a frozen one anew for each product."""
    kind = weight.device.type
    return weight.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else weight


def _loss_and_error(
    logits: Float[Tensor, "N V"],
    wanted: Int[Tensor, " N"],
    factors: Float[Tensor, " N"] | None,
    dtype: torch.dtype,
    bias_gradient: Float[Tensor, " V"] | None,
) -> tuple[Float[Tensor, ""], Float[Tensor, "N V"]]:
    """Return the weighted sum of the losses, and in the place of ``logits`` its derivatives.

    Both are computed in ``dtype``, on a CPU a few rows at a time, so that their numbers stay in the processor's cache.
    The sum of the derivatives is added to ``bias_gradient``.
    """
    counts = wanted != IGNORE_INDEX
    real = (counts if factors is None else counts * factors)[:, None]
    index = wanted.clamp(min=0)[:, None]  # IGNORE_INDEX is negative; `real` is 0 there
    tables = [(logits, index, real)]
    on_cpu = logits.device.type == "cpu"  # on a GPU, more and smaller operations would only be slower
    if on_cpu and logits.numel() > LOGITS_AT_ONCE and not torch.compiler.is_compiling():
        rows = max(1, CACHED_LOGITS // logits.shape[1])
        tables = list(zip(*(torch.split(table, rows) for table in tables[0]), strict=True))
    losses: list[Tensor] = []
    for values, desired, counted in tables:
        error = values.to(dtype)  # (n, V)
        normalizer = error.logsumexp(dim=-1, keepdim=True)  # (n, 1)
        losses.append((normalizer - error.gather(1, desired)) * counted)
        # A single sum over all tables, so that their number changes no bit; here, since what follows overwrites them.
        loss = torch.cat(losses).sum()
        # d loss / d logits: predicted probabilities minus the one-hot target. In place: the table is large.
        error.sub_(normalizer).exp_().scatter_add_(1, desired, -torch.ones_like(normalizer)).mul_(counted)
        if bias_gradient is not None:
            bias_gradient += error.sum(0)
        if error.dtype != values.dtype:
            values.copy_(error)
    return loss, logits
