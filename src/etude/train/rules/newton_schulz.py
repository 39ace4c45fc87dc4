"""The nearest orthogonal matrix, nearly: the Newton-Schulz iteration of Muon (Jordan et al. 2024), in two forms.

X <- a X + (b A + c A^2) X with A = X X^T, five times, from X / |X|. X is only ever multiplied from the left, and by
polynomials in A: the five steps are one factor Q(A) of the first X, and A can be iterated by itself. Of an (R, C)
matrix with C much larger than R all products but the first and the last are then R by R. The price is precision: A has
the squares of X's singular values, so small ones drown in rounding sooner. fp32 bears it (tested), bf16 does not.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

NEWTON_SCHULZ_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""The quintic of Jordan et al. 2024: steepest at 0, singular values end within about 0.7 to 1.2."""
NEWTON_SCHULZ_STEPS = 5
SMALLEST_NORM = 1e-7
"""A matrix that is smaller is not scaled up to 1, so that zero stays zero."""


def orthogonalize(
    matrices: Float[Tensor, "N R C"], steps: int = NEWTON_SCHULZ_STEPS
) -> Float[Tensor, "N R C"]:
    """Each matrix U S V^T moved towards U V^T, in the given dtype. Meant for R <= C."""
    a, b, c = NEWTON_SCHULZ_COEFFICIENTS
    x: Tensor = matrices / matrices.norm(dim=(-2, -1), keepdim=True).clamp(min=SMALLEST_NORM)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def orthogonalizing_factors(
    grams: Float[Tensor, "N R R"], steps: int = NEWTON_SCHULZ_STEPS
) -> Float[Tensor, "N R R"]:
    """Q for each A = X X^T, such that Q X is what :func:`orthogonalize` makes of X."""
    a, b, c = NEWTON_SCHULZ_COEFFICIENTS
    squared_norm = grams.diagonal(dim1=-2, dim2=-1).sum(-1).clamp(min=SMALLEST_NORM**2)[:, None, None]
    gram = grams / squared_norm
    identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    factors = identity / squared_norm.sqrt()
    for step in range(steps):
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factors = torch.baddbmm(factors, polynomial, factors, beta=a)
        if step < steps - 1:  # a I + P, from both sides
            half = torch.baddbmm(gram, polynomial, gram, beta=a)
            gram = torch.baddbmm(half, half, polynomial, beta=a)
    return factors
