"""Run the studio's server for a folder of runs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def served(runs: Path) -> Iterator[str]:
    """Serve the runs while the block runs; yields the address."""
    command = [sys.executable, "-m", "etude.serve", str(runs)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdin is not None
    yield json.loads(process.stdout.readline())["address"]
    process.stdin.close()
    process.wait(20)
