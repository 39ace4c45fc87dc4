"""A small text of its own and a small run on it."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from etude.config import Settings, load_settings
from etude.data.primer.generator import documents


@pytest.fixture
def text_folder(tmp_path: Path) -> Path:
    """Sixty small documents of real prose."""
    folder = tmp_path / "text"
    folder.mkdir()
    for number, document in enumerate(documents(3, 60_000)):
        (folder / f"{number:03d}.txt").write_text(document.text)
    return folder


@pytest.fixture
def small_settings(text_folder: Path, tmp_path: Path) -> Settings:
    """Nano, a dozen steps, eager: a whole run in about a second."""
    values = {
        "data.sources": (str(text_folder),),
        "data.workers": 1,
        "tokenizer.vocab_size": 300,
        "model.size": "nano",
        "model.hidden_size": 32,
        "train.steps": 12,
        "train.context": 32,
        "train.batch_rows": 4,
        "train.log_every": 3,
        "train.eval_every": 4,
        "train.sample_every": 6,
        "train.checkpoint_every": 5,
        "train.eval_tokens": 500,
        "run.folder": str(tmp_path / "runs"),
        "device.compile": False,
        "device.threads": 1,
    }
    return load_settings(values=values)


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=120)
