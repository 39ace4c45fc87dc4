"""The studies show what their document says: two layers learn to look back, and one does not."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from etude.config import load_settings, recipe_file
from etude.workflow import jobs
from etude.workflow.history import RunHistory


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
    losses = {one.step: one.val_loss for one in RunHistory.load(run).evals}
    assert 3.8 < losses[100] < 4.2  # the alphabet is known
    assert (losses[400] < 3.3) is learns
