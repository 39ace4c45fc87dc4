"""Run `etude train` as a new user does, and put its output into the README.

    python bench/first_run.py

Uses an empty cache, so that the text is prepared as on a fresh machine. Writes the block between the
`first-run` markers of README.md and the pictures docs/images/first-run.* (light and dark).
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parent.parent
MARKERS = re.compile(r"(<!-- first-run -->\n).*?(<!-- /first-run -->)", re.DOTALL)


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "ETUDE_CACHE": f"{home}/cache"}
        environment["TORCHINDUCTOR_CACHE_DIR"] = f"{home}/compiled"
        etude = [sys.executable, "-m", "etude"]
        begin = time.perf_counter()
        trained = subprocess.run([*etude, "train"], cwd=home, env=environment, capture_output=True, text=True)
        seconds = time.perf_counter() - begin
        if trained.returncode:
            sys.exit(trained.stderr)
        run = Path(home) / "runs" / "primer"
        subprocess.run([*etude, "plot", str(run)], check=True)
        subprocess.run([*etude, "plot", str(run), "--dark"], check=True)
        for name in ("loss.png", "loss-dark.png", "loss.svg"):
            shutil.copy(run / "derived" / name, REPOSITORY / "docs" / "images" / f"first-run-{name}")
        write_readme(trained.stdout, seconds, json.loads((run / "manifest.json").read_text()))
        print(trained.stdout, f"\n{seconds:.0f} s in all", sep="")


def write_readme(output: str, seconds: float, manifest: dict[str, Any]) -> None:
    """Write what the run printed at its end, with the first of its samples."""
    closing = output[output.index("\nTrained ") : output.index("\nnext:")].partition("╭─ sample 2")[0].strip()
    machine = manifest["sessions"][0]["machine"]
    where = f"{machine['cores']} cores of {machine['processor']}, Python {platform.python_version()}"
    command = f"`etude train`, {seconds:.0f} seconds from the command to the last line ({where}):"
    block = f"{command}\n\n```\n{closing}\n```\n"
    readme = REPOSITORY / "README.md"
    text, count = MARKERS.subn(lambda match: match[1] + block + match[2], readme.read_text())
    assert count == 1, "README.md has lost its first-run markers"
    readme.write_text(text)


if __name__ == "__main__":
    main()
