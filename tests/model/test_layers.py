"""The layers against their formulas in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from etude.model.layers import ACTIVATION_FUNCTIONS, RMSNorm, RotaryPositions, rotate
from networks import make_config


def test_rms_norm() -> None:
    x = torch.randn(2, 3, 8)
    norm = RMSNorm(8, 1e-3)
    torch.nn.init.normal_(norm.weight)
    values = x.double().numpy()
    expected = values / np.sqrt((values**2).mean(-1, keepdims=True) + 1e-3) * norm.weight.detach().numpy()
    np.testing.assert_allclose(norm(x).detach().numpy(), expected, atol=1e-6)


def test_rotation_rotates_each_pair_by_its_angle() -> None:
    config = make_config("llama", rope_theta=100.0)
    positions = RotaryPositions(config)
    x = torch.randn(1, 2, 11, config.head_dim)
    _, tables = positions(torch.zeros(1, 11, 32), 4, None)
    turned = rotate(x, tables)
    half = config.head_dim // 2
    pairs = torch.complex(x[..., :half].double(), x[..., half:].double())
    frequencies = 100.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = torch.outer(torch.arange(4, 15, dtype=torch.float64), frequencies)
    expected = pairs * torch.polar(torch.ones_like(angles), angles)
    torch.testing.assert_close(
        turned, torch.cat((expected.real, expected.imag), -1).float(), atol=1e-5, rtol=0
    )


def test_rotated_products_depend_on_the_distance_only() -> None:
    positions = RotaryPositions(make_config("llama"))
    query, key = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)

    def product(first: int, second: int) -> float:
        at_first = positions(torch.zeros(1, 1, 32), first, None)[1]
        at_second = positions(torch.zeros(1, 1, 32), second, None)[1]
        return float((rotate(query, at_first) * rotate(key, at_second)).sum())

    assert product(3, 1) == pytest.approx(product(40, 38), abs=1e-5)
    assert product(3, 1) != pytest.approx(product(3, 2), abs=1e-5)


def test_activation_functions_have_the_meaning_of_their_names() -> None:
    activations = pytest.importorskip("transformers.activations")
    x = torch.linspace(-6, 6, 301)
    for name, function in ACTIVATION_FUNCTIONS.items():
        torch.testing.assert_close(function(x), activations.ACT2FN[name](x), atol=1e-6, rtol=0)
