"""Check that `--time` keeps its promise: on a quiet machine, beside a busy core, and beside a program with two threads.

    python bench/time_promise.py --data FOLDER                          # all: hours
    python bench/time_promise.py --times 20s 1m --texts shakespeare --caches warm --busy 0 1

FOLDER holds tinyshakespeare.txt and the folder speeches. Each run is the plain command in a fresh folder: `etude train
TEXT --time T`, timed from its start to its end. Caches: "cold" means new caches of prepared text and of compiled code;
"warm" means those that an earlier run of the same command left (which is a run of its own if only "warm" is measured).
Busy: 0 nothing else runs; 1 a loop on one core; 2 a real PyTorch program with two threads. Runs are added to
results/time_promise.json as they end; a table of all of them is printed.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from etude.cli.options import parse_duration
from etude.config import DeviceSettings
from etude.device import choose_device, describe_machine
from etude.run import RunFolder
from harness import markdown_table

RESULTS = Path(__file__).parent / "results" / "time_promise.json"
TEXTS = {
    "shakespeare": "{data}/tinyshakespeare.txt",
    "speeches": "{data}/speeches",
    "primer": "builtin:primer",
}
TIMES = ("20s", "1m", "2m", "3m", "10m")
LATE = 0.02
"""Share of the time by which a run may be late and still keep its promise."""
HUNG = 3.0
"""Multiple of its time after which a run is killed."""
BESIDE = {
    0: "",
    1: "while True: pass",
    2: (
        "import torch; torch.set_num_threads(2); net = torch.nn.Sequential(*[torch.nn.Linear(256, 256) "
        "for _ in range(8)]); optimizer = torch.optim.SGD(net.parameters(), lr=1e-6); batch = torch.randn(512, 256)\n"
        "while True: optimizer.zero_grad(); net(batch).square().mean().backward(); optimizer.step()"
    ),
}
Run = dict[str, Any]


@contextlib.contextmanager
def beside(busy: int) -> Iterator[None]:
    """Run the busy program while the block runs."""
    if not busy:
        yield
        return
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    process = subprocess.Popen([sys.executable, "-c", BESIDE[busy]], env=environment)
    try:
        time.sleep(5)  # until its imports are done
        yield
    finally:
        process.kill()
        process.wait()


def measure(text: str, source: str, duration: str, cache: Path, options: Sequence[str]) -> Run:
    """Run the command once, with the prepared text and the compiled code in ``cache``."""
    seconds = parse_duration(duration)
    environment = {
        **os.environ,
        "ETUDE_CACHE": str(cache / "etude"),
        "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"),
    }
    command = [sys.executable, "-u", "-m", "etude", "train", source, "--time", duration, *options]
    with tempfile.TemporaryDirectory() as home:
        began = time.time()
        process = subprocess.Popen(
            [*command, "--name", "run", "--no-studio"],
            cwd=home,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            printed, _ = process.communicate(timeout=HUNG * seconds + 60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            printed, _ = process.communicate()
        took = time.time() - began
        outcome = {"exit": process.returncode, "last_line": printed.strip().rsplit("\n", 1)[-1]}
        if process.returncode == 0:
            outcome |= figures_of(RunFolder.open(Path(home) / "runs" / "run"), began, printed)
    return {
        "seconds": round(took, 1),
        "of_the_time": round(took / seconds, 3),
        "kept": process.returncode == 0 and took <= (1 + LATE) * seconds,
        **outcome,
    }


def figures_of(run: RunFolder, began: float, printed: str) -> Run:
    """Return the figures of a finished run. Seconds are from the start of the process."""
    events = list(run.metrics.read())
    evals = [event for event in events if event["event"] == "eval"]
    steps = [event for event in events if event["event"] == "step"]
    manifest = json.loads(run.manifest_file.read_text())
    expected = manifest["expected_bits_per_byte"]
    reached = evals[-1]["bits_per_byte"]
    prepared = re.search(r"^(\d+):(\d\d) of \S+ +training two small pilots", printed, re.MULTILINE)
    training = manifest["sessions"][0]["began"] - began
    derived = manifest["derived"]
    return {
        "text_prepared_after": int(prepared[1]) * 60 + int(prepared[2]) if prepared else None,
        "training_began_after": round(training, 1),
        "steps": len(steps),
        "tokens": evals[-1]["tokens_seen"],
        "bits_per_byte": round(reached, 4),
        "expected": None if expected is None else [round(value, 4) for value in expected],
        "as_expected": None if expected is None else expected[0] <= reached <= expected[-1],
        "width": derived["model.hidden_size"]["value"],
        "threads": manifest["sessions"][0]["machine"]["threads"],
        "compiled": manifest["sessions"][0]["compiled"],
    }


def table(runs: Sequence[Run]) -> str:
    """Return a table with a row per run."""
    header = (
        "text", "time", "caches", "busy", "seconds", "of the time", "kept", "text ready", "training began", "steps",
        "bits per byte", "expected", "width", "threads", "compiled",
    )  # fmt: skip
    rows = []
    for run in sorted(
        runs, key=lambda run: (run["text"], parse_duration(run["time"]), run["caches"], run["busy"])
    ):
        band = run.get("expected")
        rows.append(
            (
                run["text"], run["time"], run["caches"], str(run["busy"]), f"{run['seconds']:.1f}",
                f"{run['of_the_time']:.3f}", "yes" if run["kept"] else "NO",
                *(str(run.get(key, "")) for key in ("text_prepared_after", "training_began_after", "steps")),
                str(run.get("bits_per_byte", run["last_line"][:60])),
                f"{band[0]:.2f} to {band[-1]:.2f}" if band else "",
                *(str(run.get(key, "")) for key in ("width", "threads", "compiled")),
            )
        )  # fmt: skip
    return markdown_table(header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="../shared/data")
    parser.add_argument("--times", nargs="+", default=TIMES)
    parser.add_argument("--texts", nargs="+", default=list(TEXTS), choices=TEXTS)
    parser.add_argument("--caches", nargs="+", default=["cold", "warm"], choices=("cold", "warm"))
    parser.add_argument("--busy", nargs="+", type=int, default=list(BESIDE), choices=BESIDE)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for every run")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    options = [option for override in arguments.set for option in ("--set", override)]
    runs: list[Run] = json.loads(arguments.results.read_text()) if arguments.results.is_file() else []
    machine = describe_machine(choose_device(DeviceSettings()))
    for text in arguments.texts:
        source = TEXTS[text].format(data=Path(arguments.data).resolve())
        for busy in arguments.busy:
            for duration in arguments.times:
                cache = Path(tempfile.mkdtemp())
                if "cold" not in arguments.caches:  # a run must fill the warm cache first
                    measure(text, source, duration, cache, options)
                for caches in sorted(arguments.caches):
                    with beside(busy):
                        run = measure(text, source, duration, cache, options)
                    named = {"text": text, "time": duration, "caches": caches, "busy": busy}
                    when = {"date": datetime.date.today().isoformat(), "machine": machine, "options": options}
                    runs.append(named | run | when)
                    print(json.dumps(named | run), flush=True)
                    arguments.results.write_text(json.dumps(runs, indent=1) + "\n")
                shutil.rmtree(cache, ignore_errors=True)
    print(table(runs))


if __name__ == "__main__":
    main()
