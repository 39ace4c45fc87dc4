"""From logits to the next token: the settings, the probabilities they leave, and the draw.

The settings are applied in this order, each to what the one before it left, and what is left always sums to
one:

1. temperature: logits divided by it; 0 means the most probable token for certain (the lowest id of equals);
2. top_k: the k most probable tokens;
3. top_p: the fewest most probable tokens whose probabilities reach p (Holtzman et al. 2020);
4. min_p: the tokens at least min_p times as probable as the most probable one (Nguyen et al. 2024).

Among equally probable tokens the lower id counts as the more probable. At least one token is always left.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from etude.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingSettings:
    """How the next token is chosen and how many are. Raises InputError for values that mean nothing."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    max_new_tokens: int = 256

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise InputError(
                f"temperature must be 0 (always the likeliest token) or above, not {self.temperature}"
            )
        if self.top_k is not None and self.top_k < 1:
            raise InputError(f"top_k must be at least 1, or left out to keep every token, not {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p must be above 0 and at most 1 (keep every token), not {self.top_p}")
        if not 0 <= self.min_p <= 1:
            raise InputError(f"min_p must be from 0 (keep every token) to 1, not {self.min_p}")
        if self.max_new_tokens < 0:
            raise InputError(f"max_new_tokens must be 0 or above, not {self.max_new_tokens}")


USUAL_SAMPLING = SamplingSettings(temperature=0.8, top_p=0.95)
"""What is used unless somebody chooses: a little below the model's own temperature, without its longest tail."""


def token_probabilities(logits: Float[Tensor, "B V"], settings: SamplingSettings) -> Float[Tensor, "B V"]:
    """The distribution that is drawn from, in float64 on the CPU; 0 for every token that the settings
    exclude.
    """
    exact = logits.detach().to("cpu").double()
    # A stable sort: equal logits keep the order of their ids.
    ordered, ids = exact.sort(dim=-1, descending=True, stable=True)
    if settings.temperature == 0:
        weights = torch.zeros_like(ordered)
        weights[:, 0] = 1.0
    else:
        # The largest is taken off first: a tiny temperature must not turn it into infinity.
        weights = ((ordered - ordered[:, :1]) / settings.temperature).exp()
        weights = _keep_likeliest(weights, settings)
    probabilities = weights / weights.sum(dim=-1, keepdim=True)
    return torch.zeros_like(probabilities).scatter(-1, ids, probabilities)


def _keep_likeliest(weights: Float[Tensor, "B V"], settings: SamplingSettings) -> Float[Tensor, "B V"]:
    """top_k, top_p and min_p on weights in falling order: each keeps the first few of a row."""
    if settings.top_k is not None:
        weights[:, settings.top_k :] = 0.0
    if settings.top_p < 1:
        total = weights.sum(dim=-1, keepdim=True)
        before = weights.cumsum(dim=-1) - weights
        reached = before >= settings.top_p * total
        reached[:, 0] = False
        weights = weights.masked_fill(reached, 0.0)
    if settings.min_p > 0:
        weights = weights.masked_fill(weights < settings.min_p * weights[:, :1], 0.0)
    return weights


def draw(probabilities: Float[Tensor, " V"], generator: torch.Generator) -> int:
    """One token id, by a single number from `generator` and the cumulative distribution.

    The result depends on the probabilities and that number alone, never on the device or on other rows.
    """
    cumulative = probabilities.cumsum(dim=0)
    point = torch.rand((), generator=generator, dtype=torch.float64) * cumulative[-1]
    found = int(torch.searchsorted(cumulative, point, right=True))
    # Rounding can carry the point to the very end, where tokens of probability 0 may stand.
    last = int(probabilities.nonzero()[-1])
    return min(found, last)


def row_seed(seed: int, row: int) -> int:
    """The seed of one row of a batch: row 0 has `seed` itself, the others are unrelated to it and to each
    other.
    """
    if row == 0:
        return seed
    digest = hashlib.sha256(f"{seed}:{row}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
