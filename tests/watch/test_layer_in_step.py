"""A neuron in a training step: its gradient by the chain rule, and the terms of a weight's gradient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from etude.errors import InputError
from etude.watch.layer_in_step import LayerInStep
from etude.watch.opened_step import open_step
from watched import RUNS, Watched, require_terms_to_sum_to_gradients, train_run

KINDS: dict[str, dict[str, Any]] = {
    **RUNS,
    "llama, dropout": {"train.dropout": 0.25},
    "gpt2, dropout": {**RUNS["gpt2"], "train.dropout": 0.25},
    "mlp, dropout": {**RUNS["mlp"], "train.dropout": 0.25},
}


@pytest.fixture(scope="module", params=list(KINDS))
def layer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LayerInStep:
    run: Watched = train_run(tmp_path_factory.mktemp("layer"), "run", KINDS[request.param])
    opened = open_step(run.machine, 20)
    return LayerInStep(opened, "model" if "mlp" in request.param else "model.layers.1.mlp")


def test_the_terms_sum_to_the_gradient(layer: LayerInStep) -> None:
    """Also at neurons of the gpt2 with almost no slope, whose terms differ by hundreds of their own roundings."""
    allowed = require_terms_to_sum_to_gradients(layer, range(0, 32, 7), 2 * 2**-23)
    assert allowed < 1e-4  # otherwise a wrong gradient could pass


@pytest.mark.parametrize(("unit", "number"), [(0, 0), (5, 3), (31, 17)])
def test_the_largest_terms_name_their_tokens(layer: LayerInStep, unit: int, number: int) -> None:
    terms = layer.gradient_terms(unit, number)
    largest = terms.largest(5)
    sizes = [abs(term.amount) for term in largest]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == pytest.approx(float(terms.terms.abs().max()))
    for term in largest:
        assert term.token_id == int(layer.rows[term.row].inputs[term.position])


@pytest.mark.parametrize(("unit", "row", "position"), [(0, 0, 0), (5, 2, 7), (31, 5, 31)])
def test_the_gradient_arrives_through_the_outgoing_weights(
    layer: LayerInStep, unit: int, row: int, position: int
) -> None:
    error = layer.error(unit, row, position)
    terms = error.outgoing.double() * error.arriving.double()
    # Over a whole vocabulary few terms are large; the many small ones are rounded relative to the sum.
    times = max(6, len(terms) / 2) if layer.node_layer.path == "model" else 6
    allowed = times * 2**-23 * float(terms.abs().sum())
    assert float(terms.sum()) == pytest.approx(error.at_activation, abs=allowed)
    assert error.slope * error.at_activation == pytest.approx(
        error.at_sum, abs=1e-6 * abs(error.at_activation)
    )


def test_its_sum_is_that_of_the_forward_pass(layer: LayerInStep) -> None:
    neuron = layer.sum(3, 1, 9)
    assert neuron.difference == pytest.approx(0, abs=1e-5)
    assert len(neuron.token_ids) == 10


def test_a_missing_place_is_named(layer: LayerInStep) -> None:
    with pytest.raises(InputError, match="rows 0 to 5"):
        layer.error(0, 6, 0)
    with pytest.raises(InputError, match="positions 0 to 31"):
        layer.sum(0, 0, 32)
    with pytest.raises(InputError, match="inputs 0 to"):
        layer.gradient_terms(0, 10_000)
    with pytest.raises(InputError, match="has neurons 0 to"):
        layer.error(10_000, 0, 0)


def test_a_row_after_the_step_is_read_with_the_new_weights(layer: LayerInStep) -> None:
    opened = layer.opened
    after = opened.row(2, lambda name: False, model=opened.model_after).losses
    torch.testing.assert_close(opened.losses_after(2), after)
    assert not torch.equal(opened.losses_after(2), opened.row(2, lambda name: False).losses)


def test_a_time_machine_catches_up_with_a_running_run(tmp_path: Path) -> None:
    run = train_run(tmp_path, "going", {"train.optimizer": "muon"})
    machine = run.machine
    machine.go_to(9)
    metrics = machine.recorded.run.metrics.path
    whole = metrics.read_bytes()
    lines = whole.splitlines(keepends=True)
    early = b"".join(line for line in lines if b'"step": 3' not in line and b'"step": 4' not in line)
    metrics.write_bytes(early)
    assert machine.catch_up() is False  # recorded lines are gone, so the run was rolled back
    metrics.write_bytes(whole)
    assert machine.catch_up()
    known = machine.recorded
    metrics.write_bytes(whole + lines[-1].replace(b'"end"', b'"spike"'))
    assert machine.catch_up()
    assert machine.recorded is not known
    assert machine.states.newest_up_to(9) is not None  # replayed states are kept
