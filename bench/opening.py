"""Measure how long it takes to open a step of a real run, beside the least time that it could take.

    python bench/opening.py --sizes 1M 30M

It trains a few steps of a Llama of each size, then measures, uncompiled: going to the step after a checkpoint, opening
the next one, moving back and forth along the time line (replayed states are kept), a row with all its activations and
error signals, and the reconciliation in float64. The floor is computed: FLOPs of the network over the measured peak of
matrix products in fp32, plus bytes over the measured bandwidth of a copy.

Results: bench/results/opening.json
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from etude.config import load_settings
from etude.device import measured_bandwidth, measured_peak_flops
from etude.model.cost import count_parameters, training_flops_per_token
from etude.watch.opened_step import open_step
from etude.watch.reconciliation import reconcile
from etude.watch.time_machine import TimeMachine
from etude.workflow import jobs
from harness import RESULTS, Spread, markdown_table, write_result

SHAPES = {"1M": (128, 4, 4, 8), "30M": (512, 8, 8, 8)}
"""hidden_size, layers, heads, rows of a batch (of 256 tokens)."""
STATES = 3
"""Weights and the optimizer's two moments (at most). A copy of each is made or read."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    measured = {size: opened(size, arguments) for size in arguments.sizes}
    file = write_result("opening", {"sizes": measured}, threads=arguments.threads, folder=arguments.out)
    rows = [
        [
            f"{size}: {what}",
            *(f"{found['seconds'][key]:.3f}" for key in ("median", "low", "high")),
            found["floor"],
        ]
        for size, of_size in measured.items()
        for what, found in of_size["measured"].items()
    ]
    print(markdown_table(["", "seconds", "lowest", "highest", "floor"], rows), file, sep="\n")


def opened(size: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train and measure one size."""
    width, layers, heads, rows = SHAPES[size]
    with tempfile.TemporaryDirectory(prefix="etude-opening-") as folder:
        values = {
            "data.max_bytes": 2_000_000,
            "model.hidden_size": width,
            "model.num_hidden_layers": layers,
            "model.num_attention_heads": heads,
            "train.steps": 10,
            "train.context": 256,
            "train.batch_rows": rows,
            "train.micro_batch_rows": rows,
            "train.sample_every": 1000,
            "train.eval_tokens": 2000,
            "ladder.max_order": 1,
            "device.compile": False,
            "device.dtype": "fp32",
            "device.threads": arguments.threads,
            "run.folder": folder,
            "run.name": "opened",
        }
        path = jobs.grow(load_settings(values=values), Console(file=sys.stderr)).run.path
        begin = time.perf_counter()
        machine = TimeMachine(path)
        machine.go_to(4)
        found: dict[str, list[float]] = {"open the run, at a checkpoint": [time.perf_counter() - begin]}
        return _measured(machine, found, arguments.rounds)


def _measured(machine: TimeMachine, found: dict[str, list[float]], rounds: int) -> dict[str, Any]:
    plan = machine.era.plan
    peak, bandwidth = measured_peak_flops(plan.device), measured_bandwidth(plan.device)
    parameters = count_parameters(plan.model).total
    train = plan.settings.train
    context, batch_rows = (
        train.context,
        train.batch_rows,
    )
    row_flops = context * training_flops_per_token(plan.model, context)
    state_bytes = 4 * parameters * STATES

    def timed(what: str, do: Callable[[], object]) -> None:
        begin = time.perf_counter()
        do()
        found.setdefault(what, []).append(time.perf_counter() - begin)

    for _ in range(rounds):
        machine.states._kept.clear()
        timed("go to the step after a checkpoint", lambda: machine.go_to(5))
        timed("open the next step", lambda: open_step(machine, 6))
        timed("back one step", lambda: machine.go_to(5))
        timed("forth again", lambda: machine.go_to(6))
        step = open_step(machine, 6)
        _ = step.model
        timed("a row: all activations and error signals", partial(step.row, 0))
    timed("reconcile in float64", partial(reconcile, step))
    floors = {
        "open the run, at a checkpoint": 2 * state_bytes / bandwidth,
        "go to the step after a checkpoint": batch_rows * row_flops / peak + 2 * state_bytes / bandwidth,
        "open the next step": batch_rows * row_flops / peak + 4 * state_bytes / bandwidth,
        "back one step": 2 * state_bytes / bandwidth,
        "forth again": 2 * state_bytes / bandwidth,
        "a row: all activations and error signals": row_flops / peak,
        "reconcile in float64": 2 * batch_rows * row_flops / peak,
    }
    return {
        "parameters": parameters,
        "batch": [batch_rows, context],
        "peak_flops": peak,
        "bandwidth": bandwidth,
        "measured": {
            what: {"seconds": asdict(Spread.of(seconds)), "floor": floors[what]}
            for what, seconds in found.items()
        },
    }


if __name__ == "__main__":
    main()
