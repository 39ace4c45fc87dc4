"""Scripts that torchrun starts in several processes, each of which saves its results."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from waiting import PATIENCE


def results_of_ranks(script: ModuleType, count: int, folder: Path) -> list[dict[str, Any]]:
    """Run ``script FOLDER`` in ``count`` processes, and return what each saved as ``RANK.pt`` in ``folder``."""
    file = Path(str(script.__file__))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    path = os.pathsep.join([str(file.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [*command, str(file), str(folder)],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"{rank}.pt") for rank in range(count)]
