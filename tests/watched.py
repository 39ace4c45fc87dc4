"""Small finished runs, each with a time machine."""

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
    """A finished run. ``cache`` holds its text: set ETUDE_CACHE to it to open another time machine."""

    path: Path
    cache: Path
    machine: TimeMachine


def train_run(folder: Path, name: str, values: dict[str, Any]) -> Watched:
    """Train forty eager steps of a network 32 wide on real prose: about two seconds."""
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


def require_terms_to_sum_to_gradients(layer: LayerInStep, inputs: Iterable[int], rounding: float) -> float:
    """Compare the terms of each weight's gradient with the gradient, for the weights of these inputs.

    Their sum may differ by ``rounding`` of the numbers that were rounded on the way. Returns the whole tolerance as a
    share of the gradients.
    """
    allowed, gradients = 0.0, 0.0
    for unit in range(len(layer.opened.gradients[f"{layer.node_layer.gate}.weight"])):
        for number in inputs:
            terms = layer.gradient_terms(unit, number)
            tolerance = rounding * float((terms.inputs.abs() * terms.rounded).sum())
            assert abs(terms.total - terms.gradient) <= tolerance
            allowed += tolerance
            gradients += abs(terms.gradient)
    return allowed / gradients
