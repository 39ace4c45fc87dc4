"""Fit the forecast of ``--time`` to real runs: it predicts the loss of a network from pilots of a few seconds.

    python bench/forecast.py run --data FOLDER speeches primer    # train the runs missing in results/forecast.json
    python bench/forecast.py fit                                  # the constants of src/etude/plan/forecast.py

FOLDER holds tinyshakespeare.txt and the folder speeches. ``fit`` prints the constants, and for every text the errors of
a forecast that was fitted to the other texts only.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scipy.optimize import least_squares

from etude.plan.forecast import effective_parameters, effective_tokens
from recipe import train

RESULTS = Path(__file__).parent / "results" / "forecast.json"
TEXTS: dict[str, tuple[str, list[str]]] = {
    "shakespeare": ("{data}/tinyshakespeare.txt", ["data.split=tail", "data.validation_fraction=0.1"]),
    "speeches": ("{data}/speeches", []),
    "primer": ("builtin:primer", []),
    "python": ("builtin:python", ["data.max_bytes=12000000"]),
}
EVAL_TOKENS = 60_000
RUNS = (  # width, layers, heads, context, rows, steps; the first two are the pilots
    (64, 2, 2, 128, 4, 256),
    (64, 2, 2, 128, 8, 512),
    (128, 4, 4, 256, 4, 512),
    (64, 2, 2, 256, 8, 1024),
    (192, 4, 3, 256, 4, 1024),
    (128, 4, 4, 256, 8, 1123),
)
Run = dict[str, Any]


def overrides(width: int, layers: int, heads: int, context: int, rows: int, steps: int) -> list[str]:
    return [
        f"model.hidden_size={width}",
        f"model.num_hidden_layers={layers}",
        f"model.num_attention_heads={heads}",
        f"train.context={context}",
        f"train.batch_rows={rows}",
        f"train.steps={steps}",
    ]


def run_missing(texts: Sequence[str], data: str) -> None:
    """Train the runs that RESULTS lacks, and add each when it ends."""
    runs: list[Run] = json.loads(RESULTS.read_text()) if RESULTS.is_file() else []
    for text in texts:
        source, base = TEXTS[text]
        for shape in RUNS:
            settings = [*base, *overrides(*shape)]
            if any(run["text"] == text and run["settings"] == " ".join(settings) for run in runs):
                continue
            run = {"text": text, **train([source.format(data=data)], settings, EVAL_TOKENS)}
            print(json.dumps(run), flush=True)
            runs.append(run)
            RESULTS.write_text(json.dumps(runs, indent=1) + "\n")


def predict(constants: Sequence[float], run: Run, short: Run, long: Run) -> float:
    """Return the forecast under the given constants: ln(bits per byte of the long pilot / those of ``run``)."""
    tokens, filling, parameters, wear, decay, room = constants
    slope = math.log(short["bits_per_byte"] / long["bits_per_byte"]) / math.log(4)
    text = math.log(effective_tokens(run["tokens"], run["train_tokens"], decay) / long["tokens"])
    able, pilot_able = (
        effective_parameters(each["non_embedding"], run["train_tokens"], room) for each in (run, long)
    )
    network = math.log(able / pilot_able)
    gain = slope * (tokens * text - filling * text**2 + parameters * network)
    return gain / (1 + wear * max(0.0, gain))


def errors(constants: Sequence[float], runs: Sequence[Run]) -> list[float]:
    """Return ln(measured / forecast) of every run that is not a pilot."""
    logs = []
    for text in dict.fromkeys(run["text"] for run in runs):
        short, long, *rest = [run for run in runs if run["text"] == text]
        for run in rest:
            measured = math.log(long["bits_per_byte"] / run["bits_per_byte"])
            logs.append(predict(constants, run, short, long) - measured)
    return logs


def fit(runs: Sequence[Run]) -> list[float]:
    """Return the constants with the least squared error; none may be negative."""
    result = least_squares(errors, x0=[1.0, 0.05, 0.4, 0.3, 5.0, 8.0], bounds=(1e-6, 50), args=(runs,))
    return [float(constant) for constant in result.x]


def report() -> None:
    """Print the constants, and each text's errors under a fit to the others."""
    runs = json.loads(RESULTS.read_text())
    print(
        "TOKENS, FILLING, PARAMETERS, WEAR, REPETITION_DECAY, PARAMETERS_PER_TOKEN =",
        ", ".join(f"{constant:.3f}" for constant in fit(runs)),
    )
    for text in dict.fromkeys(run["text"] for run in runs):
        others = fit([run for run in runs if run["text"] != text])
        missed = errors(others, [run for run in runs if run["text"] == text])
        print(
            f"{text:12} fitted to the others, off by", " ".join(f"{100 * error:+.1f} %" for error in missed)
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("run", "fit"))
    parser.add_argument("texts", nargs="*", choices=(*TEXTS, []), default=[])
    parser.add_argument("--data", default="../shared/data")
    arguments = parser.parse_args()
    if arguments.what == "run":
        run_missing(arguments.texts or list(TEXTS), arguments.data)
    report()


if __name__ == "__main__":
    main()
