"""An objective in one file outside ``src`` trains, is saved, resumed, replayed with proof, opened and shown."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import later_counts_more
import numpy as np
import pytest
import torch
from rich.console import Console

from etude.config import load_settings
from etude.data.primer.generator import documents
from etude.data.tokens.coverage import IGNORE_INDEX
from etude.data.tokens.loader import BatchLoader
from etude.data.tokens.parts import TokenPart
from etude.errors import InputError
from etude.model.language_model import LanguageModel
from etude.plan.plan import validation_text
from etude.registry import OBJECTIVES
from etude.run import RunFolder
from etude.run.record import RunRecord
from etude.train.checkpoint import checkpoint_name
from etude.train.loop import Loop
from etude.watch.opened_step import model_at, model_with, open_step
from etude.watch.reconciliation import reconcile
from etude.watch.time_machine import TimeMachine
from etude.workflow import jobs
from serving import client_of
from waiting import PATIENCE

NAME = "later-counts-more"
STEPS, STOP = 24, 13


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """With a text, a cache for it, and the plugin named for every process."""
    made = tmp_path_factory.mktemp("objective")
    (made / "text").mkdir()
    for number, document in enumerate(documents(3, 60_000)):
        (made / "text" / f"{number:03d}.txt").write_text(document.text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ETUDE_CACHE", str(made / "cache"))
        patch.setenv("ETUDE_PLUGINS", later_counts_more.__file__)
        yield made


@pytest.fixture(autouse=True)
def _its_text(folder: Path, _private_cache: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETUDE_CACHE", str(folder / "cache"))


def grow(folder: Path, name: str, **changes: Any) -> RunFolder:
    values = {
        "data.sources": (str(folder / "text"),),
        "data.workers": 1,
        "data.validation_fraction": 0.2,
        "tokenizer.vocab_size": 300,
        "model.size": "nano",
        "model.hidden_size": 32,
        "train.objective": NAME,
        "train.steps": STEPS,
        "train.context": 32,
        "train.batch_rows": 6,
        "train.micro_batch_rows": 2,
        "train.dropout": 0.1,
        "train.sample_every": 1000,
        "train.checkpoint_every": 10,
        "train.eval_tokens": 500,
        "train.checksum_every": 1,
        "run.folder": str(folder / "runs"),
        "run.name": name,
        "device.compile": False,
        "device.threads": 1,
    }
    return jobs.grow(load_settings(values=values | changes), Console(file=io.StringIO(), width=200)).run


def etude(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, with the plugin by default."""
    return subprocess.run(
        [sys.executable, "-m", "etude", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=os.environ | environment,
    )


@pytest.fixture(scope="module")
def whole(folder: Path) -> RunFolder:
    return grow(folder, "whole")


def test_it_is_resumed_with_the_same_bits_by_another_process(folder: Path, whole: RunFolder) -> None:
    with pytest.MonkeyPatch.context() as patch:
        original = Loop.__init__

        def stopping(loop: Loop, *args: Any, **kwargs: Any) -> None:
            original(loop, *args, **kwargs)
            loop.should_stop = lambda: loop.state.step >= STOP

        patch.setattr(Loop, "__init__", stopping)
        run = grow(folder, "stopped")
    assert run.status()["step"] == STOP
    refused = etude("train", "--resume", run.path, "--no-studio", ETUDE_PLUGINS="")
    assert refused.returncode == 2
    assert f"there is no objective '{NAME}'" in refused.stderr
    assert "ETUDE_PLUGINS" in refused.stderr
    assert "Traceback" not in refused.stderr
    done = etude("train", "--resume", run.path, "--no-studio")
    assert done.returncode == 0, done.stderr
    for name in ("model.safetensors", "optimizer.safetensors"):
        first, second = (made.checkpoints / checkpoint_name(STEPS) / name for made in (whole, run))
        assert first.read_bytes() == second.read_bytes()


def test_every_step_is_replayed_with_proof_and_opened(whole: RunFolder) -> None:
    machine = TimeMachine(whole.path)
    machine.go_to(STEPS)
    machine.go_to(3)
    assert machine.proof.holds
    assert machine.proof.checksums > 0
    for step in (2, 20):
        opened = open_step(machine, step)
        assert opened.proof.holds
        assert opened.loss == machine.recorded.loss_at(step)
        reconciliation = reconcile(opened)
        assert reconciliation.holds, str(reconciliation)
        assert reconciliation.largest < 0.01
        rows = [opened.row(number, lambda name: False) for number in range(opened.num_rows)]
        total = sum(float(row.summed_loss) for row in rows)
        assert opened.loss == pytest.approx(total / opened.total_weight, rel=1e-5)


def own_weights(part: TokenPart, places: np.ndarray) -> np.ndarray:
    """Compute the weights in a second way: from the lengths of the documents, one after another."""
    share = np.concatenate([np.arange(length) / length for length in np.diff(part.documents)])
    return 0.5 + share[places % part.num_tokens]


def nats(model: LanguageModel, inputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """-log p of each target in float64."""
    with torch.no_grad():
        chances = torch.log_softmax(model(torch.from_numpy(inputs)), -1)
    return -chances.gather(-1, torch.from_numpy(targets).clamp(min=0)[..., None])[..., 0].numpy()


def test_its_loss_is_the_weighted_mean_of_the_whole_batch(folder: Path) -> None:
    run = grow(folder, "without-dropout", **{"train.dropout": 0.0, "train.steps": 2})
    machine = TimeMachine(run.path)
    opened = open_step(machine, 2)
    loader = BatchLoader(machine.data.train, 32, 6, opened.settings.run.seed)
    losses = nats(model_with(opened.before.weights, opened.era, torch.float64), *loader.rows(1))
    weights = own_weights(loader.part, loader.target_places(1, 0, 6))
    assert opened.loss == pytest.approx((losses * weights).sum() / weights.sum(), rel=1e-6)
    assert opened.total_weight == pytest.approx(weights.sum(), rel=1e-6)
    assert opened.loss != pytest.approx(losses.mean(), rel=1e-5)


def test_evaluations_weigh_as_training_does(whole: RunFolder) -> None:
    machine = TimeMachine(whole.path)
    model = model_at(machine, STEPS).double()
    windows = validation_text(machine.era.plan).windows
    inputs, targets = windows.batch(0, len(windows))
    losses, real = nats(model, inputs, targets), targets != IGNORE_INDEX
    weights = own_weights(machine.data.validation, windows.target_places(0, len(windows))) * real
    last = RunRecord.open(whole.path).history.evals[-1]
    assert last.val_loss == pytest.approx((losses * weights).sum() / weights.sum(), rel=1e-5)
    assert last.val_loss != pytest.approx(losses[real].mean(), rel=1e-4)
    assert last.val_tokens == real.sum()
    text = losses[
        real & (targets != machine.data.validation.document_id)
    ].sum()  # what counts at all counts once in bytes
    assert last.bits_per_byte == pytest.approx(text / math.log(2) / windows.source_bytes, rel=1e-5)


def test_it_is_shown_by_the_command_line_and_by_the_pages_api(whole: RunFolder) -> None:
    shown = etude("inspect", whole.path, "--step", 20, "--json")
    assert shown.returncode == 0, shown.stderr
    values = json.loads(shown.stdout)
    assert values["proof"]["holds"]
    with client_of(whole.path.parent) as client:
        question = {"run": whole.path.name, "look": "step", "step": 20}
        answer = json.loads(client.post("/api/ask", json=question).text.splitlines()[-1])["answer"]
    for key in ("loss", "grad_norm", "num_targets"):
        assert answer[key] == values[key]
    assert answer["proof"]["holds"]


def test_a_name_is_registered_once() -> None:
    with pytest.raises(InputError, match="'next-token' is taken"):
        OBJECTIVES.register("next-token", OBJECTIVES.get(NAME))
    assert NAME in OBJECTIVES.names()
