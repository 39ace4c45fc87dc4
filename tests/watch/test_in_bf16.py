"""A run in bf16: the watched pass shows the rounded numbers its products read, and differs by their rounding only."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from etude.model.language_model import LOGITS
from etude.watch.layer_in_step import LayerInStep
from etude.watch.opened_step import open_step
from etude.watch.values import step_values, token_values
from watched import RUNS, require_terms_to_sum_to_gradients, train_run

ROUNDING = 2**-8
"""The largest relative error of rounding to 8 bits."""
KINDS: dict[str, dict[str, Any]] = {
    "llama": {**RUNS["llama"], "train.dropout": 0.25},
    "gpt2": RUNS["gpt2"],
    "mlp": RUNS["mlp"],
    "mlp, dropout": {**RUNS["mlp"], "train.dropout": 0.25},
}
PLACES = [(unit, row, position) for unit in range(0, 32, 3) for row, position in ((0, 3), (5, 31))]


@pytest.fixture(scope="module", params=KINDS)
def layer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LayerInStep:
    values = {**KINDS[request.param], "device.dtype": "bf16"}
    run = train_run(tmp_path_factory.mktemp("bf16"), request.param, values)
    layer = "model" if request.param.startswith("mlp") else "model.layers.1.mlp"
    return LayerInStep(open_step(run.machine, 20), layer)


def test_the_sum_of_the_rounded_factors_is_rounded_once(layer: LayerInStep) -> None:
    weights = layer.opened.model.get_parameter(f"{layer.node_layer.gate}.weight").detach()
    for unit, row, position in PLACES:
        neuron = layer.sum(unit, row, position)
        for weighted_sum in (neuron.gate, neuron.up):
            if weighted_sum is not None:
                assert weighted_sum.dtype == "bf16"
                assert abs(weighted_sum.difference) <= ROUNDING * abs(weighted_sum.seen)
                assert "rounds to bf16" in weighted_sum.lines()[-1]
        # The factors are the rounded ones that the product read, not the stored fp32 numbers.
        assert torch.equal(neuron.gate.weights, weights[unit].bfloat16().double())
        assert not torch.equal(neuron.gate.weights, weights[unit].double())
        assert torch.equal(neuron.gate.inputs, neuron.gate.inputs.bfloat16().double())


def test_the_error_is_rounded_once_at_the_activation_and_twice_at_the_sum(layer: LayerInStep) -> None:
    for place in PLACES:
        error = layer.error(*place)
        total = float((error.outgoing * error.arriving).sum())
        roundings = (
            2 if layer.node_layer.path == "model" else 1
        )  # here dropout follows the product, and rounds once more
        assert abs(total - error.at_activation) <= roundings * ROUNDING * abs(error.at_activation)
        off = abs(error.at_activation * error.slope - error.at_sum)
        # The slope of tanh, 1 - y^2, is computed from its rounded value y.
        of_slope = 2 * ROUNDING if layer.opened.model.config.hidden_act == "tanh" else 1e-6
        assert off <= 2 * ROUNDING * abs(error.at_sum) + of_slope * abs(error.at_activation)


def test_the_terms_sum_to_the_gradient_up_to_rounding(layer: LayerInStep) -> None:
    """Also where a gradient is a small difference of large numbers, as at neurons of a gpt2 with almost no slope."""
    allowed = require_terms_to_sum_to_gradients(layer, range(0, 32, 5), ROUNDING)
    assert allowed < 0.3  # otherwise a wrong gradient could pass


def test_an_answer_names_its_dtype(layer: LayerInStep) -> None:
    opened = layer.opened
    row = opened.row(0)
    assert step_values(opened, row, str)["dtype"] == "bf16"
    values = token_values(opened, row, 5, str)
    assert values["dtype"] == "bf16"
    for guess in values["guesses"]:
        exact = guess["probability"] - guess["desired"]
        assert abs(exact - guess["error"]) <= ROUNDING * abs(guess["error"])
    logits = row.activations[LOGITS][0, 5].double()
    assert values["logits"]["logsumexp"] == pytest.approx(float(logits.logsumexp(0)), abs=1e-12)
