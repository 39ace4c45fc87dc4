"""The batch of a training step: token ids, loss mask, and the weight of each token in the loss.

A token's value implies nothing about the loss. A :class:`MicroBatch` has an explicit loss mask and explicit weights.
Only :meth:`MicroBatch.of` writes the mask into ``targets``, for the loss kernels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from etude.data.tokens.coverage import IGNORE_INDEX
from etude.device import Device
from etude.model.dropout import Dropout

Int64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Weights = npt.NDArray[np.float32]


@dataclass(frozen=True)
class MicroBatch:
    """Some rows of a step's batch, on the device. :meth:`of` builds one.

    Attributes:
        inputs: (B, T) token ids.
        targets: (B, T) the next token, or ``IGNORE_INDEX`` where the loss mask is False.
        num_targets: tokens that the loss counts, counted on the host, so that no step waits for the device.
        keep_mask: (P, B, T, D) for dropout (:mod:`etude.model.dropout`), None without dropout.
        document_ids: (B, T) where attention must stay inside a document, else None.
        weights: (B, T) fp32, factor of each token's loss; 0 where the loss mask is False. None: 1 each.
        weight_sum: the sum of ``weights``; None without them.
        branch_rows: (B, 2) for dropout of an adapter (:class:`etude.model.dropout.Dropout`), None without it.
    """

    inputs: Int[Tensor, "B T"]
    targets: Int[Tensor, "B T"]
    num_targets: int
    keep_mask: Tensor | None = None
    document_ids: Int[Tensor, "B T"] | None = None
    weights: Float[Tensor, "B T"] | None = None
    weight_sum: float | None = None
    branch_rows: Int[Tensor, "B 2"] | None = None

    @classmethod
    def of(
        cls,
        inputs: Int64,
        next_tokens: Int64,
        device: Device,
        *,
        loss_mask: Mask | None = None,
        weights: Weights | None = None,
        document_ids: Int64 | None = None,
        keep_mask: Tensor | None = None,
    ) -> MicroBatch:
        """Build a micro-batch from arrays of shape (B, T) and send it to ``device``.

        Args:
            next_tokens: the token that follows each input, or ``IGNORE_INDEX`` where none does.
            loss_mask: True where the loss counts the next token. None: everywhere.
            weights: factors of the loss of each next token. A weight of 0 masks the token. None: 1 each.

        Raises:
            ValueError: a weight is negative or not finite.
        """
        weight_sum = None
        if weights is not None:
            if not (np.isfinite(weights).all() and (weights >= 0).all()):
                raise ValueError("the weights of a loss must be finite and not negative")
            loss_mask = weights > 0 if loss_mask is None else loss_mask & (weights > 0)
        targets = next_tokens if loss_mask is None else np.where(loss_mask, next_tokens, IGNORE_INDEX)
        real = targets != IGNORE_INDEX
        if weights is not None:
            weights = np.where(real, weights, 0).astype(np.float32)
            weight_sum = math.fsum(weights.ravel().tolist())  # exact, so that no order of summation matters
        return cls(
            to_device(inputs, device),
            to_device(targets, device),
            int(real.sum()),
            keep_mask,
            None if document_ids is None else to_device(document_ids, device),
            None if weights is None else to_device(weights, device),
            weight_sum,
        )

    @property
    def loss_mask(self) -> Bool[Tensor, "B T"]:
        """True where the loss counts the next token."""
        return self.targets != IGNORE_INDEX

    @property
    def total_weight(self) -> int | float:
        """What this micro-batch adds to the divisor of the loss: its trained tokens, or the sum of their weights."""
        return self.num_targets if self.weight_sum is None else self.weight_sum

    @property
    def tensors(self) -> list[Tensor]:
        """Every tensor of the micro-batch."""
        masks = (self.keep_mask, self.branch_rows)
        every = (self.inputs, self.targets, self.document_ids, self.weights, *masks)
        return [tensor for tensor in every if tensor is not None]


@dataclass(frozen=True)
class Row:
    """One row of a batch, as input of the network; tensors of shape (1, T).

    ``dropout`` is that of the row, or None; ``weights`` as in :class:`MicroBatch`.
    """

    inputs: Int[Tensor, "1 T"]
    targets: Int[Tensor, "1 T"]
    document_ids: Int[Tensor, "1 T"] | None = None
    dropout: Dropout | None = None
    weights: Float[Tensor, "1 T"] | None = None


def total_weight(batch: Sequence[MicroBatch]) -> int | float:
    """Return the divisor of the summed loss of these micro-batches: number of trained tokens, or sum of weights."""
    return sum(part.total_weight for part in batch)


def to_device(array: npt.NDArray[np.int64] | Weights, device: Device) -> Tensor:
    """Copy an array to ``device``; to a GPU from pinned memory, asynchronously."""
    tensor = torch.as_tensor(array)
    if device.kind == "cuda":
        return tensor.pin_memory().to(device.torch, non_blocking=True)
    return tensor.to(device.torch)
