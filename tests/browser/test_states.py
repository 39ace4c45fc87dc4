"""What the page shows when there is little or nothing to show."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from etude.run import RunFolder
from watched import Watched

VIEWS = ["live", "step", "predictions", "layers", "neurons", "attention", "growth", "chat"]
Served = Callable[[Path, Path], str]


@pytest.fixture(scope="module")
def runs(studied: Watched, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copies of a run, each in another state."""
    folder = tmp_path_factory.mktemp("states")
    for name in ("failed", "lost", "older", "starting", "untrained", "notfinite", "damaged"):
        shutil.copytree(studied.path, folder / name)
    status(folder / "failed", state="failed", reason="no space left on device")
    status(folder / "lost", state="running", heartbeat=1.0)
    status(folder / "older", schema=99)
    for file in ("metrics.jsonl", "samples.jsonl", "status.json"):
        (folder / "starting" / file).unlink()
    shutil.rmtree(folder / "starting" / "checkpoints")
    (folder / "starting" / "run.toml").touch()
    keep(folder / "untrained", lambda event: event["step"] == 0)
    for checkpoint in sorted((folder / "untrained" / "checkpoints").iterdir())[1:]:
        shutil.rmtree(checkpoint)
    keep(folder / "notfinite", lambda event: True, lost=30)
    (folder / "damaged" / "metrics.jsonl").write_text("{\nnonsense\n")
    (folder / "damaged" / "status.json").write_text("[]")
    (folder / "damaged" / "ladder.json").write_text("3")
    import os

    os.utime(folder / "lost" / "metrics.jsonl", (1, 1))
    return folder


def status(run: Path, **changes: Any) -> None:
    file = run / "status.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def keep(run: Path, wanted: Callable[[dict[str, Any]], bool], lost: int | None = None) -> None:
    """Keep only wanted events; the loss of step ``lost`` becomes not finite."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if wanted(line)]
    for line in lines:
        if line["event"] == "step" and line["step"] == lost:
            line |= {"event": "left_out", "loss": "nan", "grad_norm": "nan", "batch": []}
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture(scope="module")
def states_address(runs: Path, studied: Watched, serve: Served) -> str:
    return serve(runs, studied.cache)


def test_no_run_yet(page: Any, serve: Served, tmp_path: Path, studied: Watched) -> None:
    page.goto(serve(tmp_path, studied.cache))
    page.get_by_text("No run yet").wait_for()
    assert "etude train" in page.locator("main").inner_text()


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(
    "state", ["failed", "lost", "older", "starting", "untrained", "notfinite", "damaged"]
)
def test_every_view_loads_in_every_state(page: Any, states_address: str, state: str, view: str) -> None:
    """Nothing throws or logs (the page fixture checks this), and the frame is shown."""
    page.goto(f"{states_address}#/{view}?run={state}")
    page.locator("[data-state]").wait_for()
    page.wait_for_timeout(400)
    assert page.locator("main h2").first.is_visible() or page.locator("main").inner_text().strip()


def test_the_reason_of_the_end_is_shown(page: Any, states_address: str) -> None:
    page.goto(f"{states_address}#/live?run=failed")
    page.get_by_role("alert").get_by_text("no space left on device").wait_for()
    page.goto(f"{states_address}#/live?run=lost")
    page.get_by_role("alert").get_by_text("has not reported").wait_for()
    page.goto(f"{states_address}#/live?run=older")
    page.get_by_role("alert").get_by_text("another version").wait_for()


def test_a_skipped_step_is_shown(page: Any, states_address: str) -> None:
    page.goto(f"{states_address}#/live?run=notfinite")
    page.locator("main").get_by_text("30").first.wait_for()
    assert "finite" in page.locator("main").inner_text()


def test_a_server_that_is_gone_leaves_the_page(
    page: Any, serve: Served, studied: Watched, tmp_path: Path
) -> None:
    import signal
    import subprocess

    runs = tmp_path / "runs"
    shutil.copytree(studied.path, runs / "llama")
    address = serve(runs, studied.cache)
    page.goto(f"{address}#/live")
    page.get_by_text("Validation loss").first.wait_for()
    servers = subprocess.run(
        ["pgrep", "-f", f"etude.serve {runs}"], capture_output=True, text=True
    ).stdout.split()
    for number in servers:
        import os

        os.kill(int(number), signal.SIGKILL)
    page.get_by_text("does not answer").wait_for()
    assert "Validation loss" in page.locator("main").inner_text()
    page.trouble.clear()  # the browser logs the failed requests


def test_a_run_that_was_removed_is_no_longer_shown(
    page: Any, serve: Served, studied: Watched, tmp_path: Path
) -> None:
    for name in ("kept", "removed"):
        shutil.copytree(studied.path, tmp_path / "runs" / name)
    page.goto(f"{serve(tmp_path / 'runs', studied.cache)}#/live?run=removed")
    page.get_by_text("Validation loss").first.wait_for()
    shutil.rmtree(tmp_path / "runs" / "removed")
    page.get_by_role("alert").get_by_text("no run is called 'removed'").wait_for()
    assert "Validation loss" not in page.locator("main").inner_text()
    page.get_by_label("Run").select_option("kept")
    page.get_by_text("Validation loss").first.wait_for()
    page.trouble.clear()  # the browser logs the refused requests


def test_a_text_from_a_run_is_never_markup(
    page: Any, serve: Served, studied: Watched, tmp_path: Path
) -> None:
    run = tmp_path / "runs" / "evil"
    shutil.copytree(studied.path, run)
    evil = "<img src=x onerror=\"document.title='caught'\"><script>document.title='caught'</script>"
    sample = {
        "schema": 1,
        "event": "sample",
        "step": 40,
        "tokens_seen": 1,
        "wall_time": 1.0,
        "prompt": evil,
        "text": evil,
    }
    (run / "samples.jsonl").write_text(json.dumps(sample) + "\n")
    status(run, state="failed", reason=evil)
    address = serve(run.parent, studied.cache)
    for view in ("live", "growth", "chat"):
        page.goto(f"{address}#/{view}?run=evil")
        page.locator("[data-state]").wait_for()
        page.wait_for_timeout(500)
        assert "caught" not in page.title()
        assert page.locator("main img").count() == 0


def test_a_training_is_paused_from_the_page(
    page: Any, serve: Served, studied: Watched, tmp_path: Path
) -> None:
    run = tmp_path / "runs" / "going"
    shutil.copytree(studied.path, run)
    status(run, state="running", heartbeat=time.time())
    address = serve(run.parent, studied.cache)
    with RunFolder(run).locked():
        page.goto(f"{address}#/live?run=going")
        page.get_by_role("button", name="Pause").click()
        page.get_by_role("button", name="Resume").wait_for()
        assert (run / "control" / "pause").is_file()
        page.get_by_role("button", name="One step", exact=True).click()
        page.wait_for_timeout(300)
        assert (run / "control" / "one_step").is_file()
        page.get_by_role("button", name="Resume").click()
        page.get_by_role("button", name="Pause").wait_for()
        assert not (run / "control" / "pause").exists()
    page.locator("[data-state=lost]").wait_for()  # its process is gone
    assert page.get_by_role("button", name="Pause").count() == 0
