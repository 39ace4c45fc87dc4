"""Replay fifty steps of a run of some minutes, and check that they are the same, to the bit.

    python bench/replayed.py --time 5m

It trains a run of the primer with the default settings (compiled where that works), with a checksum of all parameters
at every step and a checkpoint every hundred steps. Then it replays to fifty random steps in random order, and compares
loss, gradient norm and checksum of every step on the way with the record. A tenth of the fifty is opened and reconciled
with float64.

Results: bench/results/replayed.json
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from etude.watch.opened_step import open_step
from etude.watch.reconciliation import reconcile
from etude.watch.time_machine import TimeMachine
from harness import RESULTS, Spread, markdown_table, write_result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--time", default="5m")
    parser.add_argument("--steps", type=int, default=50, help="steps to replay to")
    parser.add_argument("--optimizer", default="muon")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="etude-replayed-") as folder:
        measured = replayed(train(Path(folder), arguments), arguments)
    file = write_result("replayed", measured, threads=arguments.threads, folder=arguments.out)
    rows = [[key, value] for key, value in measured.items() if not isinstance(value, list | dict)]
    print(markdown_table(["", ""], rows), file, sep="\n")
    if not measured["all_equal"]:
        sys.exit("some steps are not the same")


def train(folder: Path, arguments: argparse.Namespace) -> Path:
    """Train the run with the command line, in a process of its own."""
    settings = {
        "train.checksum_every": 1,
        "train.keep_every": 100,
        "train.checkpoint_every": 100,
        "train.optimizer": arguments.optimizer,
        "device.threads": arguments.threads,
        "run.folder": str(folder),
        "run.name": "replayed",
    }
    command = [sys.executable, "-m", "etude", "train", "--time", arguments.time]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    subprocess.run(command, check=True)
    return folder / "replayed"


def replayed(run: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Replay to random steps of the run, and compare them with its record."""
    machine = TimeMachine(run)
    recorded = machine.recorded
    dice = random.Random(arguments.seed)
    steps = dice.sample(range(1, recorded.last_step + 1), arguments.steps)
    seconds, compared, unequal = [], 0, []
    for step in steps:
        begin = time.perf_counter()
        machine.go_to(step)
        seconds.append(time.perf_counter() - begin)
        compared += len(machine.proof.compared)
        expected, proof = recorded.checksums[step], machine.proof
        if not proof.holds or (proof.compared and proof.compared[-1].checksum != (expected, expected)):
            unequal.append({"step": step, "proof": str(proof)})
        print(f"step {step}: {seconds[-1]:.1f} s, {proof}", file=sys.stderr, flush=True)
    differences: dict[str, list[float]] = {}
    for step in steps[: max(1, len(steps) // 10)]:
        for check in reconcile(open_step(machine, step)).checks:
            differences.setdefault(check.name, []).append(check.difference)
    return {
        "run_steps": recorded.last_step,
        "compiled": machine.era.compiled,
        "optimizer": arguments.optimizer,
        "steps_gone_to": len(steps),
        "comparisons_of_steps": compared,
        "all_equal": not unequal,
        "unequal": unequal,
        "seconds": asdict(Spread.of(seconds)),
        "largest_differences": {name: max(values) for name, values in differences.items()},
    }


if __name__ == "__main__":
    main()
