"""The page that ``etude train`` serves: from the first steps until after the end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from waiting import PATIENCE

SMALL = [
    "--size=nano", "--steps=400", "--set=model.hidden_size=32", "--set=train.context=32", "--set=train.batch_rows=4",
    "--set=tokenizer.vocab_size=300", "--set=device.compile=false", "--set=device.threads=1",
    "--set=data.workers=1", "--set=data.max_bytes=60000", "--set=train.eval_tokens=500",
]  # fmt: skip

HELD = """
import time
from pathlib import Path
from etude.train import loop

make_step = loop.make_step

def held(state, *arguments, **options):
    while state.step >= 300 and not Path("seen").exists():
        time.sleep(0.05)
    return make_step(state, *arguments, **options)

loop.make_step = held
from etude.cli.main import run
run()
"""
"""``etude`` whose training does not end before the test has seen it run, however slow the page is."""


def test_the_page_is_served_from_the_first_steps_until_after_the_end(page: Any, tmp_path: Path) -> None:
    command = [sys.executable, "-c", HELD, "train", *SMALL]
    training = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    try:
        assert training.stdout is not None
        address = re.search(r"http://\S+", training.stdout.readline())
        assert address is not None
        page.goto(address[0])
        page.locator("[data-state=running]").wait_for()
        (tmp_path / "seen").touch()
        rest, _ = training.communicate(timeout=PATIENCE)
        assert training.returncode == 0
        assert f"the page stays at {address[0]}" in rest
        page.locator("[data-state=finished]").wait_for()
        assert page.get_by_role("button", name="Pause").count() == 0
        page.get_by_role("link", name="Chat").click()
        page.get_by_role("button", name="Continue the text").wait_for()
    finally:
        training.kill()
        for number in serving(tmp_path):
            os.kill(number, signal.SIGTERM)


def serving(folder: Path) -> list[int]:
    """Return the servers that were started in a folder (Linux)."""
    output = subprocess.run(["pgrep", "-f", "etude.serve runs"], capture_output=True, text=True).stdout
    return [
        int(process_id)
        for process_id in output.split()
        if Path(f"/proc/{process_id}/cwd").resolve() == folder.resolve()
    ]
