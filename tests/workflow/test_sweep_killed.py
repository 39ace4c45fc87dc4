"""A real sweep is killed in the middle, alone or with the processes that it started; --resume completes it."""

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


def begin_sweep(command: list[str], path: Path) -> tuple[subprocess.Popen[bytes], Path]:
    """Start a sweep and wait for its first checkpoint. A busy machine refuses a short time: then give it more."""
    settings = [word for setting in SMALL for word in ("--set", setting)]
    folder, begin = path / "runs" / "sweep", time.monotonic()
    for seconds in (150, 300, 600, 1200):
        options = f"--sizes 2 --seeds 1 --time {seconds}s --items 16 --suite world".split()
        sweep = subprocess.Popen([*command, *options, *settings], cwd=path, start_new_session=True)
        while sweep.poll() is None and time.monotonic() - begin < LONGEST:
            if list(folder.glob("*/checkpoints/step-*")):
                return sweep, folder
            time.sleep(0.2)
        assert sweep.poll() == 2, "it neither began nor refused the time"
    raise AssertionError("no time was long enough")


@pytest.mark.parametrize("alone", [False, True], ids=["with its training", "alone"])
def test_a_sweep_survives(tmp_path: Path, alone: bool) -> None:
    """A sweep that is killed alone leaves a training process behind, which the next sweep waits for."""
    command = [sys.executable, "-m", "etude", "sweep"]
    first, folder = begin_sweep(command, tmp_path)
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
