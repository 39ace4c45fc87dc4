"""Definitions from papers, written again in float64, for comparison in tests."""

from __future__ import annotations

import numpy as np


def published_iteration(matrix: np.ndarray, steps: int = 5) -> np.ndarray:
    """Compute Jordan et al. 2024 in float64: X <- aX + bAX + cA(AX) with A = X X^T."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix / np.linalg.norm(matrix)
    if x.shape[0] > x.shape[1]:
        return published_iteration(matrix.T, steps).T
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + b * (gram @ x) + c * (gram @ gram @ x)
    return x
