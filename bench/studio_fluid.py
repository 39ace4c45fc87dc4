"""How fluid the studio's page is on a run: every view's first paint, the page's longest task, and the run's answers.

    python bench/studio_fluid.py RUN            # a run of 100 M parameters is what this is for

Each view is opened on a new page. Until all of its questions are answered (or the time is up) the page's own tasks are
watched: a task of more than 50 ms holds up a key or a click by as much. Then keys choose another layer and node.

Wants Chromium and playwright. Results: bench/results/studio_fluid.json
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
    parser.add_argument("--patience", type=float, default=300.0, help="seconds that a view may be waited for")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the result is kept")
    arguments = parser.parse_args()
    run = arguments.run.absolute()
    found = opened(run, arguments.views, arguments.patience)
    heads = ["view", "first paint (s)", "longest task (ms)", "answered (s)"]
    rows = [
        [row["view"], f"{row['paint']:.2f}", f"{row['longest_task']:.0f}", answered(row["answered"])]
        for row in found
    ]
    print(markdown_table(heads, rows))
    config = load_config(sorted((run / "checkpoints").iterdir())[0])
    result = {"parameters": count_parameters(config).total, "views": found}
    print(write_result("studio_fluid", result, threads=available_cores(), folder=arguments.out))


def answered(seconds: float | None) -> str:
    return "not in time" if seconds is None else f"{seconds:.1f}"


def opened(run: Path, views: list[str], patience: float) -> list[dict[str, Any]]:
    from playwright.sync_api import sync_playwright

    with served(run.parent) as address, sync_playwright() as begun:
        browser = begun.chromium.launch(executable_path=which("chromium"), args=["--no-sandbox"])
        found = []
        for view in views:
            page = browser.new_page()
            page.add_init_script(WATCH)
            found.append({"view": view, **looked_at(page, f"{address}#/{view}?run={run.name}", patience)})
            page.close()
            print(found[-1], file=sys.stderr)
        return found


def looked_at(page: Any, address: str, patience: float) -> dict[str, Any]:
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
    """Seconds from ``begun`` until every question is answered; None where that takes longer than ``patience``."""
    page.wait_for_timeout(400)
    while page.evaluate(BUSY):
        if time.monotonic() - begun > patience:
            return None
        page.wait_for_timeout(100)
    return time.monotonic() - begun


if __name__ == "__main__":
    main()
