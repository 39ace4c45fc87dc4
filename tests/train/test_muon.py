"""Muon against its published iteration in float64, and against PyTorch's own class."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from etude.train.rules.muon import Muon, update_scale
from published import published_iteration

SHAPES = [(8, 8), (16, 40), (40, 16), (1, 5), (5, 1)]


def reference_steps(
    weight: Tensor, gradients: list[Tensor], lr: float, momentum: float, decay: float
) -> np.ndarray:
    w = weight.double().numpy().copy()
    buffer = np.zeros_like(w)
    for gradient in gradients:
        g = gradient.double().numpy()
        buffer = momentum * buffer + (1 - momentum) * g
        direction = published_iteration(momentum * buffer + (1 - momentum) * g)
        w = w - lr * decay * w - lr * math.sqrt(max(1.0, w.shape[0] / w.shape[1])) * direction
    return w


def test_updates_follow_the_rule_and_do_not_depend_on_batching_by_shape() -> None:
    generator = torch.Generator().manual_seed(2)
    weights = [torch.randn(shape, generator=generator) for shape in [*SHAPES, *SHAPES]]
    gradients = [[torch.randn(w.shape, generator=generator) for w in weights] for _ in range(4)]
    together = [torch.nn.Parameter(w.clone()) for w in weights]
    optimizer = Muon(together, lr=0.02, momentum=0.9, weight_decay=0.1)
    for step in gradients:
        for parameter, gradient in zip(together, step, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()
    for index, weight in enumerate(weights):
        expected = reference_steps(weight, [step[index] for step in gradients], 0.02, 0.9, 0.1)
        np.testing.assert_allclose(together[index].detach().numpy(), expected, rtol=2e-4, atol=2e-5)


def test_agrees_with_torchs_muon_within_its_bf16() -> None:
    generator = torch.Generator().manual_seed(3)
    start = torch.randn(24, 64, generator=generator)
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    a = Muon([ours], lr=0.02, momentum=0.95, weight_decay=0.1)
    b = torch.optim.Muon([theirs], lr=0.02, momentum=0.95, weight_decay=0.1, adjust_lr_fn="original")
    for _ in range(3):
        gradient = torch.randn(24, 64, generator=generator)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        a.step()
        b.step()
    moved = (theirs - start).norm()
    assert (ours - theirs).norm() < 0.02 * moved


@pytest.mark.parametrize("width", [16, 64, 256])
@pytest.mark.parametrize("aspect", [0.5, 1, 3])
def test_an_update_moves_outputs_by_the_rate_at_any_width(width: int, aspect: float) -> None:
    """The spectral norm of an update is lr * sqrt(max(1, rows / columns)): outputs move by lr relative to inputs."""
    shape = (int(aspect * width), width)
    parameter = torch.nn.Parameter(torch.zeros(shape))
    parameter.grad = torch.randn(shape, generator=torch.Generator().manual_seed(4))
    Muon([parameter], lr=0.1).step()
    norm = float(torch.linalg.matrix_norm(parameter.detach(), ord=2))
    assert 0.6 < norm / (0.1 * update_scale(*shape)) < 1.3


def test_row_blocks_are_separate_matrices() -> None:
    generator = torch.Generator().manual_seed(6)
    start = torch.randn(24, 16, generator=generator)
    whole, parts = torch.nn.Parameter(start.clone()), [torch.nn.Parameter(p.clone()) for p in start.split(8)]
    together = Muon([{"params": [whole], "row_blocks": 3}], lr=0.05, weight_decay=0.1)
    shorter = update_scale(24, 16, row_blocks=3) / update_scale(8, 16)
    apart = Muon(parts, lr=0.05 * shorter, weight_decay=0.1 / shorter)
    for _ in range(3):
        gradient = torch.randn(24, 16, generator=generator)
        whole.grad = gradient.clone()
        for part, piece in zip(parts, gradient.split(8), strict=True):
            part.grad = piece.clone()
        together.step()
        apart.step()
    torch.testing.assert_close(whole.detach(), torch.cat([part.detach() for part in parts]))


def test_bf16_agrees_within_its_precision() -> None:
    """The form for GPUs: the iteration on the blocks themselves."""
    generator = torch.Generator().manual_seed(8)
    start = torch.randn(64, 96, generator=generator)
    single, half = (torch.nn.Parameter(start.clone()) for _ in range(2))
    single.grad = half.grad = torch.randn(64, 96, generator=generator)
    Muon([{"params": [single], "row_blocks": 2}], lr=0.02, weight_decay=0.1).step()
    Muon([{"params": [half], "row_blocks": 2}], lr=0.02, weight_decay=0.1, dtype=torch.bfloat16).step()
    assert (single - half).norm() < 0.02 * (single - start).norm()


def test_a_zero_gradient_leaves_only_the_decay() -> None:
    parameter = torch.nn.Parameter(torch.ones(4, 4))
    parameter.grad = torch.zeros(4, 4)
    Muon([parameter], lr=0.1, weight_decay=0.5).step()
    assert torch.equal(parameter.detach(), torch.full((4, 4), 0.95))


@pytest.mark.parametrize("shape", [(24, 16), (16, 24), (48, 16), (16, 48)])
@pytest.mark.parametrize("kind", ["row_blocks", "column_blocks"])
def test_blocks_are_orthogonal_separately_and_scaled_by_their_number(
    shape: tuple[int, int], kind: str
) -> None:
    gradient = torch.randn(shape, generator=torch.Generator().manual_seed(7))
    whole, parts = (torch.nn.Parameter(torch.zeros(shape)) for _ in range(2))
    whole.grad, parts.grad = gradient.clone(), gradient.clone()
    Muon([whole], lr=0.1).step()
    Muon([{"params": [parts], kind: 4}], lr=0.1).step()
    size = float((parts.norm() / whole.norm()).detach())
    assert size == pytest.approx(4**-0.25, rel=0.15)  # singular values end near one only
    axis = 0 if kind == "row_blocks" else 1
    for block, piece in zip(parts.detach().chunk(4, axis), gradient.chunk(4, axis), strict=True):
        np.testing.assert_allclose(
            -block / block.norm(),
            (direction := published_iteration(piece.double().numpy())) / np.linalg.norm(direction),
            atol=1e-5,
        )


def test_blocks_that_do_not_divide_a_matrix_are_refused() -> None:
    for kind, shape in (("row_blocks", (4, 3)), ("column_blocks", (3, 4))):
        with pytest.raises(ValueError, match="does not divide"):
            Muon([{"params": [torch.nn.Parameter(torch.ones(shape))], kind: 3}], lr=0.1)


def test_vectors_are_refused() -> None:
    with pytest.raises(ValueError, match="matrices only"):
        Muon([torch.nn.Parameter(torch.ones(3))], lr=0.1)
