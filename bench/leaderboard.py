"""Find the best loss of each text in each time: run `etude train TEXT --time T`, record it, write LEADERBOARD.md.

    python bench/leaderboard.py --data FOLDER --times 3m 10m --texts shakespeare speeches primer

FOLDER holds tinyshakespeare.txt and the folder speeches. Every run is the plain command, in a process of its own, and
is scored at its end on the whole held-out part. results/leaderboard.json keeps every run, LEADERBOARD.md the best of
each text and time.
"""

from __future__ import annotations

import argparse
import datetime
import io
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from etude.device import describe_machine
from etude.model.cost import count_parameters
from etude.plan.plan import initial_state
from etude.run.checkpoints import newest_good_checkpoint
from etude.train.checkpoint import load_state
from etude.train.validation import ValidationText
from etude.workflow.start import reopen
from harness import markdown_table
from texts import DATA, TEXTS, Text

RESULTS = Path(__file__).parent / "results" / "leaderboard.json"
PAGE = Path(__file__).parent / "LEADERBOARD.md"
Run = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--times", nargs="*", default=["3m"])
    parser.add_argument("--texts", nargs="*", choices=list(TEXTS), default=list(TEXTS))
    parser.add_argument("--threads", type=int, help="fewer than all cores, for several runs side by side")
    arguments = parser.parse_args()
    for duration in arguments.times:
        for text in arguments.texts:
            result = measure(TEXTS[text], duration, arguments.data, arguments.threads)
            run = {"text": text, "time": duration, **result}
            print(json.dumps(run), flush=True)
            # Read the file again: another call may have added runs to it meanwhile.
            runs: list[Run] = [*(json.loads(RESULTS.read_text()) if RESULTS.is_file() else []), run]
            RESULTS.write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")
            PAGE.write_text(page(runs), encoding="utf-8")


def measure(text: Text, duration: str, folder: Path, threads: int | None) -> Run:
    """Run the plain command, and score its result on the whole held-out part."""
    overrides = [*text.held_out, *([f"device.threads={threads}"] if threads else [])]
    options = [option for override in overrides for option in ("--set", override)]
    with tempfile.TemporaryDirectory() as home:
        command = [
            sys.executable,
            "-m",
            "etude",
            "train",
            *text.sources(folder),
            "--time",
            duration,
            *options,
        ]
        begin = time.perf_counter()
        done = subprocess.run(
            [*command, "--name", "run", "--no-studio"], cwd=home, capture_output=True, text=True
        )
        seconds = time.perf_counter() - begin
        if done.returncode:
            sys.exit(done.stderr)
        plan, run = reopen(Path(home) / "runs" / "run", (), Console(file=io.StringIO()))
        manifest = json.loads(run.manifest_file.read_text())
        state = initial_state(plan)
        load_state(newest_good_checkpoint(run.checkpoints)[0], state)
        last = [event for event in run.metrics.read() if event["event"] == "eval"][-1]
        context = plan.settings.train.context
        score = ValidationText(plan.data.validation, context, plan.device).score(state.model)
    return {
        "date": datetime.date.today().isoformat(),
        "command": f"etude train {text.source} --time {duration} {' '.join(options)}".strip(),
        "machine": describe_machine(plan.device),
        "seconds": round(seconds, 1),
        "expected": [round(value, 4) for value in manifest["expected_bits_per_byte"]],
        "reached_on_sample": round(last["bits_per_byte"], 4),
        "loss": round(score.loss, 4),
        "bits_per_byte": round(score.bits_per_byte, 4),
        "width": plan.model.hidden_size,
        "layers": plan.model.num_hidden_layers,
        "parameters": count_parameters(plan.model).total,
        "tokens": state.tokens_seen,
    }


def page(runs: list[Run]) -> str:
    """Return LEADERBOARD.md: the best run of each text and time."""
    rows = []
    for text in TEXTS:
        for duration in dict.fromkeys(run["time"] for run in runs if run["text"] == text):
            best = min(
                (run for run in runs if (run["text"], run["time"]) == (text, duration)),
                key=lambda run: run["bits_per_byte"],
            )
            low, _, high = best["expected"]
            rows.append(
                (
                    text,
                    duration,
                    f"{best['bits_per_byte']:.4f}",
                    f"{best['loss']:.4f}",
                    f"{best['seconds']:.0f}",
                    f"{low:.3f} to {high:.3f}",
                    f"{best['reached_on_sample']:.3f}",
                    f"{best['width']} x {best['layers']}, {best['parameters']:,}",
                    f"`{best['command']}`",
                    f"{best['machine']['git_commit'][:9]}, {best['date']}",
                    f"{best['machine']['threads']} cores of {best['machine']['processor']}",
                )
            )
    header = (
        "text", "time", "bits per byte", "nats per token", "seconds, typing to end",
        "expected", "reached on the sample",
        "width x layers, parameters",
        "command", "commit and date", "machine",
    )  # fmt: skip
    return (
        "# Leaderboard\n\n"
        "The best known loss of each text in each time, on the whole held-out part; `expected` and `reached on the "
        "sample` are on the tokens that the run itself evaluates. Written by `bench/leaderboard.py`; all runs are in "
        "`results/leaderboard.json`.\n\n"
        f"{markdown_table(header, rows)}\n"
    )


if __name__ == "__main__":
    main()
