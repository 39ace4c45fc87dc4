"""Measure how fluid the studio's page is: the first paint of every view, the longest task of the page, and the answers.

    python bench/studio_fluid.py RUN            # meant for a run of 100 M parameters

Each view is opened on a new page. Until all of its requests are answered (or the time is up), the tasks of the page are
measured: a task of more than 50 ms delays a key or a click by as much. Then keys choose another layer and neuron.

Needs Chromium and playwright. Results: bench/results/studio_fluid.json
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from shutil import which
from typing import Any

from etude.device import available_cores
from etude.model.cost import count_parameters
from etude.model.folder import load_config
from harness import RESULTS, markdown_table, write_result
from studio_served import served

VIEWS = ("live", "step", "layers", "neurons", "attention", "predictions", "growth", "chat")
WATCH = """
window.tasks = [0];
new PerformanceObserver((list) => {
  for (const task of list.getEntries()) window.tasks.push(task.duration);
}).observe({ type: 'longtask', buffered: true });
"""
BUSY = "document.querySelector('main').getAttribute('aria-busy') === 'true'"
KEYS = "]j]k["


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--views", nargs="+", choices=VIEWS, default=list(VIEWS))
    parser.add_argument("--patience", type=float, default=300.0, help="seconds to wait for a view")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result")
    arguments = parser.parse_args()
    run = arguments.run.absolute()
    results = opened(run, arguments.views, arguments.patience)
    heads = ["view", "first paint (s)", "longest task (ms)", "answered (s)"]
    rows = [
        [row["view"], f"{row['paint']:.2f}", f"{row['longest_task']:.0f}", answered(row["answered"])]
        for row in results
    ]
    print(markdown_table(heads, rows))
    config = load_config(sorted((run / "checkpoints").iterdir())[0])
    result = {"parameters": count_parameters(config).total, "views": results}
    print(write_result("studio_fluid", result, threads=available_cores(), folder=arguments.out))


def answered(seconds: float | None) -> str:
    return "not in time" if seconds is None else f"{seconds:.1f}"


def opened(run: Path, views: list[str], patience: float) -> list[dict[str, Any]]:
    from playwright.sync_api import sync_playwright

    with served(run.parent) as address, sync_playwright() as begun:
        browser = begun.chromium.launch(executable_path=which("chromium"), args=["--no-sandbox"])
        results = []
        for view in views:
            page = browser.new_page()
            page.add_init_script(WATCH)
            results.append({"view": view, **measure(page, f"{address}#/{view}?run={run.name}", patience)})
            page.close()
            print(results[-1], file=sys.stderr)
        return results


def measure(page: Any, address: str, patience: float) -> dict[str, Any]:
    """Open a view and return its times in seconds, and its longest task in milliseconds."""
    begun = time.monotonic()
    page.goto(address)
    page.locator("main h2").first.wait_for()
    paint = time.monotonic() - begun
    first = waited(page, begun, patience)
    for key in KEYS if first is not None else "":
        page.keyboard.press(key)
        page.wait_for_timeout(150)
    again = time.monotonic()
    after = waited(page, again, patience) if first is not None else None
    return {
        "paint": paint,
        "answered": first,
        "answered_after_keys": after,
        "longest_task": page.evaluate("Math.max(...window.tasks)"),
    }


def waited(page: Any, begun: float, patience: float) -> float | None:
    """Return the seconds from ``begun`` until every request is answered; None if they exceed ``patience``."""
    page.wait_for_timeout(400)
    while page.evaluate(BUSY):
        if time.monotonic() - begun > patience:
            return None
        page.wait_for_timeout(100)
    return time.monotonic() - begun


if __name__ == "__main__":
    main()
