"""The studies show what their document describes."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from etude.config import load_settings
from etude.evaluate.command import EvaluationRequest, evaluate
from etude.evaluate.records import read_records
from etude.run.record import RunRecord
from etude.settings_file import recipe_file
from etude.workflow import jobs


@pytest.mark.parametrize(("layers", "learns"), [(2, True), (1, False)])
def test_two_layers_learn_to_look_back_and_one_does_not(tmp_path: Path, layers: int, learns: bool) -> None:
    values = {
        "model.num_hidden_layers": layers,
        "train.steps": 400,
        "run.folder": str(tmp_path),
        "data.max_bytes": 2_000_000,
        "device.compile": False,
    }
    settings = load_settings(recipe_file("induction"), [], values)
    run = jobs.grow(settings, Console(file=io.StringIO())).run.path
    losses = {event.step: event.val_loss for event in RunRecord.open(run).history.evals}
    assert 3.8 < losses[100] < 4.2  # the alphabet is known
    assert (losses[400] < 3.3) is learns


def test_weight_decay_leads_from_answers_known_by_heart_to_the_rule(tmp_path: Path) -> None:
    """The training text holds more sums than in the recipe, so that the network finds the rule sooner."""
    values = {
        "data.validation_fraction": 0.4,
        "train.steps": 1600,
        "run.folder": str(tmp_path),
        "device.compile": False,
    }
    settings = load_settings(recipe_file("grokking"), [], values)
    quiet = Console(file=io.StringIO())
    run = jobs.grow(settings, quiet).run.path
    evaluate(EvaluationRequest(run, every_checkpoint=True, num_items=128), quiet)
    right = {(record.where.step, record.condition): record for record in read_records(run).records}
    assert right[400, "never seen"].model.accuracy.value < 0.1
    assert right[800, "seen in training"].model.accuracy.value > 0.3
    assert (
        right[800, "never seen"].model.accuracy.value
        < right[800, "seen in training"].model.accuracy.value - 0.2
    )
    assert right[1600, "seen in training"].model.accuracy.value > 0.95
    assert right[1600, "never seen"].model.accuracy.value > 0.7
