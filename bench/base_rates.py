"""Compare learning rates and update rules for a published model: loss on the text that it trains on, and elsewhere.

    python bench/base_rates.py MODEL notes.txt speeches/ builtin:python --out rates.jsonl

Each training is short, without a run folder: ``--steps`` steps of 4 rows of 256 tokens. Two numbers are measured before
and after it: bits per byte of the held-out part of the text, and of the reference text, which has nothing to do with
it. First every rate is tried with one seed; then the rate of the dial, and the best of each rule and text by held-out
loss, with the other seeds. Each training adds a line to ``--out``; those that are there already are not trained again.
``--report FILE`` prints the table of such a file. About two minutes for each training of 135 million parameters.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from etude.config import load_settings
from etude.data.reference import BUILT_IN, reference_text
from etude.model.folder import load_model_folder
from etude.plan.base_values import BASE_RATES
from etude.plan.plan import Plan, initial_state, make_objective, reference_validation, validation_text
from etude.train.loop import Loop
from etude.workflow.prepare import make_plan

CONTEXT, ROWS = 256, 4
GRID = {"adamw": (1e-5, 3e-5, 1e-4, 3e-4, 1e-3), "muon": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)}
KEY = ("model", "text", "rule", "rate", "seed", "steps")
RATE_OF = {"adamw": "train.lr", "muon": "train.muon_lr"}
SEEDS = (1, 2, 3)
Result = dict[str, Any]


def plan_of(model: str, text: str, rule: str, rate: float, seed: int, steps: int, threads: str) -> Plan:
    overrides = [
        f"train.optimizer={rule}",
        f"{RATE_OF[rule]}={rate}",
        f"run.seed={seed}",
        "data.seed=1",
        f"train.steps={steps}",
        f"train.context={CONTEXT}",
        f"train.batch_rows={ROWS}",
        "train.eval_tokens=4096",
        "data.max_bytes=600000",
        "data.workers=1",
        f"device.threads={threads}",
    ]
    settings = load_settings(None, overrides, {"data.sources": (text,), "model.base": model})
    return make_plan(settings, Console(file=io.StringIO()))[0]


def measure(model: str, text: str, rule: str, rate: float, seed: int, steps: int, threads: str) -> Result:
    """Train once, and return the losses before and after."""
    plan = plan_of(model, text, rule, rate, seed, steps, threads)
    assert plan.base is not None
    state = initial_state(plan)
    state.model.load_state_dict(load_model_folder(plan.base.folder)[0].state_dict())
    reference = reference_text(BUILT_IN)
    assert reference is not None
    texts = {"held_out": validation_text(plan), "reference": reference_validation(plan, reference)}
    before = {name: text.score(state.model).bits_per_byte for name, text in texts.items()}
    loop = Loop(state, make_objective(plan, state), plan.settings.train, plan.device)
    begin = time.perf_counter()
    for _ in range(steps):
        loop.one_step()
    seconds = time.perf_counter() - begin
    after = {name: text.score(state.model).bits_per_byte for name, text in texts.items()}
    return {
        "model": Path(model).name,
        "text": Path(text).name,
        "rule": rule,
        "rate": rate,
        "seed": seed,
        "steps": steps,
        "dtype": plan.settings.device.dtype,
        "before": before,
        "after": after,
        "seconds": round(seconds, 1),
    }


def read(file: Path) -> list[Result]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def best_rate(results: Iterable[Result], text: str, rule: str) -> float:
    """Return the rate with the lowest held-out loss of the first seed."""
    of_first = [r for r in results if (r["text"], r["rule"], r["seed"]) == (text, rule, SEEDS[0])]
    rate: float = min(of_first, key=lambda result: result["after"]["held_out"])["rate"]
    return rate


def run(model: str, texts: Sequence[str], steps: int, threads: str, out: Path) -> None:
    def once(text: str, rule: str, rate: float, seed: int) -> None:
        key = (Path(model).name, Path(text).name, rule, rate, seed, steps)
        if key in {tuple(r.get(name) for name in KEY) for r in read(out)}:
            return
        result = measure(model, text, rule, rate, seed, steps, threads)
        with out.open("a") as file:
            file.write(json.dumps(result) + "\n")
        print(line_of([result]), flush=True)

    for text in texts:
        for rule, rates in GRID.items():
            for rate in rates:
                once(text, rule, rate, SEEDS[0])
    for text in texts:
        for rule in GRID:
            rates = dict.fromkeys(
                [BASE_RATES[RATE_OF[rule]].value, best_rate(read(out), Path(text).name, rule)]
            )
            for rate in rates:
                for seed in SEEDS[1:]:
                    once(text, rule, rate, seed)


def line_of(results: Sequence[Result]) -> str:
    """Return a row of the table: the mean over seeds and, of several, the range."""
    first = results[0]
    cells = [first["text"], first["rule"], f"{first['rate']:g}", str(len(results))]
    for name in ("held_out", "reference"):
        after = [result["after"][name] for result in results]
        spread = f" ({min(after):.3f} to {max(after):.3f})" if len(after) > 1 else ""
        cells.append(f"{first['before'][name]:.3f} -> {statistics.mean(after):.3f}{spread}")
    cells.append(f"{statistics.median(result['seconds'] / result['steps'] for result in results):.1f}")
    return "| " + " | ".join(cells) + " |"


def report(results: Sequence[Result]) -> None:
    print("| text | rule | peak rate | seeds | held out, bits per byte | reference text | seconds per step |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    groups = defaultdict(list)
    for result in results:
        groups[result["text"], result["rule"], result["rate"]].append(result)
    for group in groups.values():
        print(line_of(group))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?")
    parser.add_argument("texts", nargs="*")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--threads", default="auto")
    parser.add_argument("--out", type=Path, default=Path("base_rates.jsonl"))
    parser.add_argument("--report", type=Path)
    arguments = parser.parse_args()
    if arguments.report is not None:
        report(read(arguments.report))
    else:
        run(arguments.model, arguments.texts, arguments.steps, arguments.threads, arguments.out)
