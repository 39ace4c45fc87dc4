"""The benchmarks are run by hand and seldom: that each still finds what it imports is seen here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from waiting import PATIENCE

BENCH = Path(__file__).parent.parent / "bench"


def test_every_benchmark_finds_what_it_imports() -> None:
    modules = sorted(file.stem for file in BENCH.glob("*.py"))
    assert len(modules) > 20
    done = subprocess.run(
        [sys.executable, "-c", f"import {', '.join(modules)}"],
        cwd=BENCH,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr[-2000:]
