"""Backpropagation against the definition of a derivative, in float64, for every parameter tensor."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from networks import EVERY, make_config, make_network, make_tokens

STEP = 1e-5


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("documents", [False, True], ids=["crossing", "documents"])
def test_gradients_are_slopes_of_the_loss(name: str, documents: bool) -> None:
    changes = {} if name.startswith("mlp") else {"num_hidden_layers": 2}
    model = make_network(make_config(name, **changes), 3).double()
    inputs, targets = make_tokens(2, 11), make_tokens(2, 11, seed=9)
    ids = torch.tensor([[0] * 4 + [1] * 7, [0] * 9 + [1] * 2]) if documents else None

    def loss() -> torch.Tensor:
        return F.cross_entropy(model(inputs, document_ids=ids).flatten(0, 1), targets.flatten())

    loss().backward()
    generator = torch.Generator().manual_seed(4)
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        direction /= direction.norm()
        slope = (parameter.grad * direction).sum()
        with torch.no_grad():
            parameter += STEP * direction
            above = loss()
            parameter -= 2 * STEP * direction
            below = loss()
            parameter += STEP * direction
        measured = (above - below) / (2 * STEP)
        torch.testing.assert_close(
            measured, slope, atol=2e-9, rtol=1e-6, msg=lambda m, key=key: f"{key}: {m}"
        )
