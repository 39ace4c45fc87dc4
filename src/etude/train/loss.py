"""The loss: how far the predicted distributions are from the tokens that came, in nats."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from etude.data.tokens.coverage import IGNORE_INDEX


def token_losses(logits: Float[Tensor, "B T V"], targets: Int[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """Cross-entropy of each position in nats, computed in fp32; 0 where the target is ``IGNORE_INDEX``."""
    return F.cross_entropy(
        logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORE_INDEX, reduction="none"
    ).view_as(targets)


def summed_loss(logits: Float[Tensor, "B T V"], targets: Int[Tensor, "B T"]) -> Float[Tensor, ""]:
    """The sum of :func:`token_losses`.

    A step divides it by the number of real targets in its *whole* batch, never in one micro-batch: only then
    is the gradient the same however the batch is split (transformers PR 34191 tells the story of the other way).
    """
    return F.cross_entropy(
        logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORE_INDEX, reduction="sum"
    )
