"""Measure what the studio costs a training run: with its page closed, open, and open while the worker replays steps.

    python bench/studio_cost.py                # about ten minutes on two cores
    python bench/studio_cost.py --replaying

One real training run (compiled, all threads) runs all the time, and its server beside it. Windows of some seconds take
turns: the page is closed (the browser shows an empty page); the Live view is open; with --replaying, also the Live view
while the worker opens one step after another. The speed in each window comes from the record of the run (tokens over
seconds of training), and is compared with the window of the same round in which the page was closed.

Needs Chromium and playwright. Results: bench/results/studio_cost.json
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which
from typing import Any

from etude.train.control import Control
from harness import Measurements, Spread, arguments_of, markdown_table, ratio, summary, write_result
from studio_served import served

ALONE, OPEN, REPLAYING = "page closed", "page open", "page open, steps opened"
OUT_OF_THE_WAY = ["eval_every=100000", "sample_every=100000", "checkpoint_every=100000", "keep_every=100"]
LOGGED = ["log_every=1"]


def main() -> None:
    arguments = parse()
    with (
        tempfile.TemporaryDirectory(prefix="etude-bench-") as folder,
        training(Path(folder), arguments) as run,
    ):
        with served(Path(folder) / "runs") as address:
            measured = take_turns(run, address, arguments)
        Control(run).request("stop")
    costs = {name: ratio(measured, "seconds_per_token", name, ALONE) for name in measured}
    print(table(measured, costs))
    result = {"seconds_a_window": arguments.seconds, "times_as_long": costs, "rounds": measured}
    print(write_result("studio_cost", result, threads=arguments.threads, folder=arguments.out))


def parse() -> argparse.Namespace:
    parser = arguments_of(__doc__, rounds=16)
    parser.add_argument("--seconds", type=float, default=12.0, help="length of a window")
    parser.add_argument(
        "--settle", type=float, default=4.0, help="seconds before a window that are not counted"
    )
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--replaying", action="store_true", help="also measure while steps are opened")
    return parser.parse_args()


@contextmanager
def training(folder: Path, arguments: argparse.Namespace) -> Iterator[Path]:
    """Run a training until a stop is requested through its control files; yields its run folder."""
    settings = [f"train.{setting}" for setting in OUT_OF_THE_WAY + LOGGED] + [
        f"device.threads={arguments.threads}"
    ]
    options = [option for setting in settings for option in ("--set", setting)]
    command = [
        sys.executable,
        "-m",
        "etude",
        "train",
        "--size",
        arguments.size,
        "--steps",
        "200000",
        "--name",
        "run",
    ]
    process = subprocess.Popen([*command, "--no-studio", *options], cwd=folder, stdout=subprocess.DEVNULL)
    run = folder / "runs" / "run"
    while len(steps_of(run)) < 30:  # compiled, and warm
        if process.poll() is not None:
            sys.exit("the training ended")
        time.sleep(1)
    yield run
    process.wait(120)


def take_turns(run: Path, address: str, arguments: argparse.Namespace) -> Measurements:
    from playwright.sync_api import sync_playwright

    measured: Measurements = {
        name: [] for name in (ALONE, OPEN, REPLAYING) if name != REPLAYING or arguments.replaying
    }
    dice = random.Random(0)
    with sync_playwright() as begun:
        # One browser runs all the time, so that the cost of the browser itself is not counted for the page.
        browser = begun.chromium.launch(executable_path=which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        for number in range(arguments.rounds):
            for name in dice.sample(list(measured), len(measured)):
                page.goto("about:blank" if name == ALONE else address + "#/live")
                with stepping(run, address, name == REPLAYING):
                    time.sleep(arguments.settle)  # until the first requests of the page are answered
                    result = window(run, arguments.seconds)
                measured[name].append(result)
                speed = f"{result['seconds_per_token'] * 1e6:.2f} us per token"
                print(f"round {number + 1}, {name}: {speed}", file=sys.stderr)
    return measured


@contextmanager
def stepping(run: Path, address: str, wanted: bool) -> Iterator[None]:
    """Open one step after another while the block runs, if ``wanted``."""
    stop = threading.Event()
    opening = threading.Thread(target=open_steps, args=(run, address, stop))
    if wanted:
        opening.start()
    yield
    stop.set()
    if wanted:
        opening.join()


def open_steps(run: Path, address: str, stop: threading.Event) -> None:
    """Request one step after another, each a few steps after a checkpoint, as the page does while a run trains."""
    dice = random.Random(1)
    page, _, token = address.partition("?token=")
    while not stop.is_set():
        saved = sorted(int(folder.name.split("-")[1]) for folder in (run / "checkpoints").glob("step-*"))
        step = dice.choice(saved[:-1]) + dice.randint(1, 8)
        question = json.dumps({"run": run.name, "look": "step", "step": step}).encode()
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
        with urllib.request.urlopen(urllib.request.Request(page + "api/ask", question, headers)) as answer:
            answer.read()


def window(run: Path, seconds: float) -> dict[str, Any]:
    """Measure the speed of the training for some seconds, from its own record."""
    first = steps_of(run)[-1]
    time.sleep(seconds)
    last = steps_of(run)[-1]
    tokens = last["tokens_seen"] - first["tokens_seen"]
    return {"seconds_per_token": (last["wall_time"] - first["wall_time"]) / tokens, "tokens": tokens}


def steps_of(run: Path) -> list[dict[str, Any]]:
    try:
        lines = (run / "metrics.jsonl").read_bytes().splitlines()
    except OSError:
        return []
    return [json.loads(line) for line in lines if b'"event": "step"' in line[:40] and line.endswith(b"}")]


def table(measured: Measurements, costs: dict[str, Spread]) -> str:
    speeds = summary(measured, "seconds_per_token")
    rows = [
        [name, Spread(*(1e6 * value for value in (speed.median, speed.low, speed.high))), costs[name]]
        for name, speed in speeds.items()
        if speed is not None
    ]
    return markdown_table(["", "us per token", "times page closed"], rows)


if __name__ == "__main__":
    main()
