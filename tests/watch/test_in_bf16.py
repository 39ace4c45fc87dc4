"""A run that multiplies in bf16: what is shown is what its products read, and off by their rounding alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from etude.model.language_model import LOGITS
from etude.watch.layer_in_step import LayerInStep
from etude.watch.opened_step import open_step
from etude.watch.values import step_values, token_values
from watched import RUNS, require_pushes_to_be_gradients, train_run

ROUNDING = 2**-8
"""The most that a number with 8 bits is away from what it was rounded from, as a share of it."""
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


def test_the_sum_of_what_was_read_is_rounded_once(layer: LayerInStep) -> None:
    kept = layer.opened.model.get_parameter(f"{layer.node_layer.gate}.weight").detach()
    for unit, row, position in PLACES:
        found = layer.sum(unit, row, position)
        for one in (found.gate, found.up):
            if one is not None:
                assert one.dtype == "bf16"
                assert abs(one.difference) <= ROUNDING * abs(one.seen)
                assert "rounds to bf16" in one.lines()[-1]
        # The factors are those that the product read, not the fp32 numbers that are kept.
        assert torch.equal(found.gate.weights, kept[unit].bfloat16().double())
        assert not torch.equal(found.gate.weights, kept[unit].double())
        assert torch.equal(found.gate.inputs, found.gate.inputs.bfloat16().double())


def test_the_error_is_rounded_once_at_the_activation_and_twice_at_the_sum(layer: LayerInStep) -> None:
    for place in PLACES:
        error = layer.error(*place)
        total = float((error.outgoing * error.arriving).sum())
        roundings = (
            2 if layer.node_layer.path == "model" else 1
        )  # dropout, which there comes after the product
        assert abs(total - error.at_activation) <= roundings * ROUNDING * abs(error.at_activation)
        off = abs(error.at_activation * error.slope - error.at_sum)
        # The slope of tanh, 1 - y^2, is made of its rounded value y.
        of_slope = 2 * ROUNDING if layer.opened.model.config.hidden_act == "tanh" else 1e-6
        assert off <= 2 * ROUNDING * abs(error.at_sum) + of_slope * abs(error.at_activation)


def test_the_pushes_are_the_gradient_but_for_what_was_rounded(layer: LayerInStep) -> None:
    """Also where an error is a small difference of large numbers, as at nodes of a gpt2 whose slope is nearly none."""
    allowed = require_pushes_to_be_gradients(layer, range(0, 32, 5), ROUNDING)
    assert allowed < 0.3  # so that a gradient that is wrong is seen


def test_an_answer_says_in_which_arithmetic(layer: LayerInStep) -> None:
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
