"""Both forms of the orthogonalisation against the published iteration in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from etude.train.rules.newton_schulz import orthogonalize, orthogonalizing_factors
from published import published_iteration


def through_gram(matrices: Tensor) -> Tensor:
    return orthogonalizing_factors(matrices @ matrices.mT) @ matrices


@pytest.mark.parametrize("form", [orthogonalize, through_gram])
@pytest.mark.parametrize("shape", [(8, 8), (16, 40), (1, 5), (64, 512)])
def test_it_is_the_published_iteration(form: Callable[[Tensor], Tensor], shape: tuple[int, int]) -> None:
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ours = form(matrices)
    for matrix, result in zip(matrices, ours, strict=True):
        np.testing.assert_allclose(result.numpy(), published_iteration(matrix.numpy()), rtol=1e-8, atol=1e-10)
    single = form(matrices.float())
    assert torch.allclose(single.double(), ours, atol=2e-4)


@pytest.mark.parametrize("condition", [1e2, 1e4, 1e8])
def test_fp32_is_precise_enough_for_small_singular_values(condition: float) -> None:
    """Squaring loses the smallest to rounding: they must stay small, and the others be accurate."""
    generator = torch.Generator().manual_seed(1)
    u, _ = torch.linalg.qr(torch.randn(64, 64, generator=generator, dtype=torch.float64))
    v, _ = torch.linalg.qr(torch.randn(256, 64, generator=generator, dtype=torch.float64))
    values = torch.logspace(0, -np.log10(condition), 64, dtype=torch.float64)
    matrix = (u * values) @ v.T
    expected = torch.from_numpy(published_iteration(matrix.numpy()))
    for form, tolerance in ((orthogonalize, 1e-4), (through_gram, 5e-3)):
        actual = form(matrix[None].float())[0].double()
        assert torch.linalg.matrix_norm(actual - expected, ord=2) < tolerance


@pytest.mark.parametrize("form", [orthogonalize, through_gram])
@pytest.mark.parametrize("shape", [(16, 16), (16, 48)])
def test_singular_values_approach_one_and_directions_stay(
    form: Callable[[Tensor], Tensor], shape: tuple[int, int]
) -> None:
    matrix = torch.randn(1, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    u, s, vt = torch.linalg.svd(matrix[0], full_matrices=False)
    core = u.T @ form(matrix)[0] @ vt.T
    assert torch.allclose(core, torch.diag(core.diag()), atol=1e-8)
    # The smallest singular value of a random matrix may start too near 0 to arrive in five steps.
    reached = core.diag()[s > 0.02 * s.norm()]
    assert reached.min() > 0.6
    assert reached.max() < 1.3
