"""The studio's server for a folder of runs, while a block lasts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def served(runs: Path) -> Iterator[str]:
    """Gives the address."""
    command = [sys.executable, "-m", "etude.serve", str(runs)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdin is not None
    yield json.loads(process.stdout.readline())["address"]
    process.stdin.close()
    process.wait(20)
