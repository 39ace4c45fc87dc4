"""The feed-forward model against equation 1 of Bengio et al. (2003), written out in numpy."""

from __future__ import annotations

import numpy as np
import pytest

from networks import WINDOWS, make_config, make_network, make_tokens


@pytest.mark.parametrize("name", WINDOWS)
def test_equation_one(name: str) -> None:
    config = make_config(name, eos_token_id=7)
    model = make_network(config)
    state = {key: value.double().numpy() for key, value in model.state_dict().items()}
    tokens = make_tokens(2, 10)
    logits = model(tokens).detach().numpy()
    size, nodes = config.context_size, config.intermediate_size
    for row in range(2):
        for position in range(10):
            seen = ([7] * size + tokens[row].tolist())[position + 1 : position + 1 + size]
            x = np.concatenate([state["model.embed_tokens.weight"][token] for token in seen])
            inner = np.tanh(state["model.hidden.bias"] + state["model.hidden.weight"] @ x)
            y = state["lm_head.bias"] + state["lm_head.weight"][:, :nodes] @ inner
            if config.direct_connections:
                y = y + state["lm_head.weight"][:, nodes:] @ x
            np.testing.assert_allclose(logits[row, position], y, atol=1e-5)


def test_every_neuron_has_weights_and_a_bias() -> None:
    names = set(make_network(make_config("mlp")).state_dict())
    assert names == {
        "model.embed_tokens.weight",
        "model.hidden.weight",
        "model.hidden.bias",
        "lm_head.weight",
        "lm_head.bias",
    }
