"""A real sweep, killed in the middle, with what it trains or alone: typed again with --resume it comes to its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from etude.emergence.sweep_plan import SweepPlan
from etude.evaluate.records import read_records
from etude.run import RunFolder
from etude.run.checkpoints import list_checkpoints, step_of
from waiting import PATIENCE

SMALL = [
    "data.max_bytes=400000",
    "data.workers=1",
    "tokenizer.vocab_size=300",
    "device.compile=false",
    "device.threads=1",
    "train.sample_every=100000",
    "train.eval_tokens=2000",
]
LONGEST = 1200.0


@pytest.mark.parametrize("alone", [False, True], ids=["with its training", "alone"])
def test_a_sweep_survives(tmp_path: Path, alone: bool) -> None:
    """Killed alone, it leaves a training behind, which the next one waits for."""
    command = [sys.executable, "-m", "etude", "sweep"]
    settings = [word for one in SMALL for word in ("--set", one)]
    asked = ["--sizes", "2", "--seeds", "1", "--time", "150s", "--items", "16", "--suite", "world"]
    first = subprocess.Popen([*command, *asked, *settings], cwd=tmp_path, start_new_session=True)
    folder = tmp_path / "runs" / "sweep"
    begun = time.monotonic()
    while not list(folder.glob("*/checkpoints/step-*")):
        assert first.poll() is None
        assert time.monotonic() - begun < LONGEST
        time.sleep(0.2)
    time.sleep(1.0)
    (os.kill if alone else os.killpg)(first.pid, signal.SIGKILL)
    first.wait()
    plan = SweepPlan.load(folder)
    written = (folder / "sweep.json").read_bytes()
    again = subprocess.run(
        [*command, "--resume", str(folder)], cwd=tmp_path, capture_output=True, text=True, timeout=LONGEST
    )
    assert again.returncode == 0, again.stderr
    assert "etude emergence" in again.stdout
    assert (folder / "sweep.json").read_bytes() == written
    for member in plan.members:
        run = RunFolder.open(folder / member.name)
        assert run.status()["state"] == "finished"
        steps = {record.where.step for record in read_records(run.path).records}
        assert steps == set(map(step_of, list_checkpoints(run.checkpoints)))
        assert {record.where.num_parameters for record in read_records(run.path).records} == {
            member.num_parameters
        }
    assert "three sizes" in json.loads((folder / "prediction.json").read_text())["why_not"]
    third = subprocess.run(
        [*command, "--resume", str(folder)], cwd=tmp_path, capture_output=True, timeout=PATIENCE
    )
    assert third.returncode == 0
