"""Real runs of a few seconds, healthy unless a test changes their settings."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from rich.console import Console

from etude.config import Settings, load_settings
from etude.data.primer.generator import documents
from etude.workflow.fit import fit
from etude.workflow.prepare import make_plan
from etude.workflow.start import start


def write_text(folder: Path, num_bytes: int) -> None:
    """Write small documents of real prose."""
    folder.mkdir(parents=True)
    for number, document in enumerate(documents(3, num_bytes)):
        (folder / f"{number:04d}.txt").write_text(document.text)


def settings_for(folder: Path, name: str, **values: Any) -> Settings:
    """Return the settings of 200 steps on the text in ``folder``: every rule can judge the run, and none finds a
    problem."""
    defaults = {
        "run.folder": str(folder / "runs"),
        "run.name": name,
        "data.sources": (str(folder / "text"),),
        "data.workers": 1,
        "tokenizer.vocab_size": 300,
        "model.size": "nano",
        "model.hidden_size": 32,
        "train.steps": 200,
        "train.context": 64,
        "train.batch_rows": 8,
        "train.eval_every": 25,
        "train.sample_every": 1000,
        "train.checkpoint_every": 100,
        "train.eval_tokens": 4_000,
        "ladder.max_order": 3,
        "device.compile": False,
        "device.threads": 1,
    }
    return load_settings(values=defaults | values)


def finished_run(settings: Settings) -> Path:
    """Train a run; return its folder."""
    console = Console(file=io.StringIO(), width=120)
    plan, _ = make_plan(settings, console)
    run = start(plan, console)
    fit(plan, run, console)
    return run.path
