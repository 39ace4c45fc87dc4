"""Approximate the nearest orthogonal matrix: the Newton-Schulz iteration of Muon (Jordan et al. 2024), in two forms.

X <- a X + (b A + c A^2) X with A = X X^T, five times, from X / |X|. Each step multiplies X from the left by a
polynomial in A. So the five steps together are one factor Q(A) of the first X, and A can be iterated by itself. For an
(R, C) matrix with C much larger than R, all products except the first and the last are then R by R. The price is
precision: A has the squares of X's singular values, so small ones are lost to rounding sooner. fp32 is precise enough
(tested), bf16 is not.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

NEWTON_SCHULZ_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""a, b, c of Jordan et al. 2024: chosen for a steep slope at 0; singular values end between about 0.7 and 1.2."""
NEWTON_SCHULZ_STEPS = 5
SMALLEST_NORM = 1e-7
"""Matrices with a smaller norm are not normalised to 1, so that zero stays zero."""


def orthogonalize(
    matrices: Float[Tensor, "N R C"], steps: int = NEWTON_SCHULZ_STEPS
) -> Float[Tensor, "N R C"]:
    """Move each matrix U S V^T towards U V^T, in its own dtype. Meant for R <= C."""
    a, b, c = NEWTON_SCHULZ_COEFFICIENTS
    x: Tensor = matrices / matrices.norm(dim=(-2, -1), keepdim=True).clamp(min=SMALLEST_NORM)
    for _ in range(steps):
        gram = x @ x.mT  # (N, R, R)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def orthogonalizing_factors(
    grams: Float[Tensor, "N R R"], steps: int = NEWTON_SCHULZ_STEPS
) -> Float[Tensor, "N R R"]:
    """Return Q for each A = X X^T, such that Q X is :func:`orthogonalize` of X."""
    a, b, c = NEWTON_SCHULZ_COEFFICIENTS
    # The trace of X X^T is the squared Frobenius norm of X.
    squared_norm = grams.diagonal(dim1=-2, dim2=-1).sum(-1).clamp(min=SMALLEST_NORM**2)[:, None, None]
    gram = grams / squared_norm
    identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    factors = identity / squared_norm.sqrt()
    for step in range(steps):
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factors = torch.baddbmm(factors, polynomial, factors, beta=a)
        if step < steps - 1:  # A of the next step: (a I + P) A (a I + P)
            half = torch.baddbmm(gram, polynomial, gram, beta=a)
            gram = torch.baddbmm(half, half, polynomial, beta=a)
    return factors
