"""Small finished runs, and a machine that goes to any step of each."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from etude.config import load_settings
from etude.data.primer.generator import documents
from etude.watch.layer_in_step import LayerInStep
from etude.watch.time_machine import TimeMachine
from etude.workflow import jobs

STEPS = 40
RUNS: dict[str, dict[str, Any]] = {
    "llama": {"train.optimizer": "muon"},
    "gpt2": {"model.preset": "gpt2", "train.optimizer": "adamw", "data.cross_document_attention": False},
    "mlp": {"model.preset": "mlp", "train.optimizer": "adamw"},
}


@dataclass(frozen=True)
class Watched:
    """A finished run. ``cache`` holds its text: set ETUDE_CACHE to it to open another machine."""

    path: Path
    cache: Path
    machine: TimeMachine


def train_run(folder: Path, name: str, values: dict[str, Any]) -> Watched:
    """Forty eager steps, 32 wide, on real prose: about two seconds."""
    text, cache = folder / "text", folder / "cache"
    text.mkdir(parents=True)
    for number, document in enumerate(documents(3, 60_000)):
        (text / f"{number:03d}.txt").write_text(document.text)
    size = {} if values.get("model.preset") == "mlp" else {"model.num_hidden_layers": 2}
    settings = load_settings(
        values={
            "data.sources": (str(text),),
            "data.workers": 1,
            "data.validation_fraction": 0.2,
            "tokenizer.vocab_size": 300,
            "model.size": "nano",
            "model.hidden_size": 32,
            "train.steps": STEPS,
            "train.context": 32,
            "train.batch_rows": 6,
            "train.micro_batch_rows": 3,
            "train.sample_every": 1000,
            "train.checkpoint_every": 16,
            "train.keep_checkpoints": 2,
            "train.eval_tokens": 500,
            "run.folder": str(folder / "runs"),
            "run.name": name,
            "device.compile": False,
            "device.threads": 1,
            **size,
            **values,
        }
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ETUDE_CACHE", str(cache))
        torch.set_num_threads(1)
        jobs.grow(settings, console=Console(file=io.StringIO(), width=120))
        path = folder / "runs" / name
        return Watched(path, cache, TimeMachine(path))


def require_pushes_to_be_gradients(layer: LayerInStep, inputs: Iterable[int], rounding: float) -> float:
    """Of every node's weights to these inputs, but for ``rounding`` of all that was rounded to make the errors in them.

    Returns what was allowed in all, as a share of the gradients.
    """
    allowed, gradients = 0.0, 0.0
    for unit in range(len(layer.opened.gradients[f"{layer.node_layer.gate}.weight"])):
        for number in inputs:
            tug = layer.tug_of_war(unit, number)
            may = rounding * float((tug.inputs.abs() * tug.rounded).sum())
            assert abs(tug.total - tug.gradient) <= may
            allowed += may
            gradients += abs(tug.gradient)
    return allowed / gradients
