"""The page of a training outlives it only while it is used."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from etude.serve.studio_beside import StudioBeside
from waiting import PATIENCE


def look(address: str) -> object:
    page, _, token = address.partition("?token=")
    request = urllib.request.Request(page + "api/runs", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return json.load(answer)


def test_a_page_that_nobody_opened_ends_with_the_training(tmp_path: Path) -> None:
    beside = StudioBeside(tmp_path)
    assert beside.address(30)
    assert not beside.end()
    assert beside._process.poll() is not None


def test_a_page_that_somebody_has_open_stays(tmp_path: Path) -> None:
    beside = StudioBeside(tmp_path)
    address = beside.address(30)
    look(address)
    assert beside.end()
    try:
        assert look(address) == []
    finally:
        os.kill(beside._process.pid, signal.SIGTERM)
        beside._process.wait(20)


def test_it_ends_some_time_after_the_last_look(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "etude.serve", str(tmp_path), "1.5"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    address = json.loads(process.stdout.readline())["address"]
    look(address)
    process.stdin.close()
    assert json.loads(process.stdout.readline()) == {"stays": True}
    assert process.stdout.readline() == ""  # a reader of the output does not have to wait
    for _ in range(3):
        time.sleep(0.7)
        look(address)
    assert process.wait(20) == 0
