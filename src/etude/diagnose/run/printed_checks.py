"""Print the checks of :mod:`etude.run.file_checks`, for ``etude doctor RUN --verify``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from etude.messages import command
from etude.run import RunFolder
from etude.run.checkpoints import checkpoint_name
from etude.run.file_checks import Check, verify
from etude.show.lines import print_line


def print_checks(path: Path, console: Console, *, json_lines: bool = False) -> bool:
    """Print a line for each file of the run at ``path``, and return whether all agree with their checksums.

    Raises:
        InputError: there is no run.
    """
    checks, run = [], RunFolder.open(path)
    for check in verify(run):
        checks.append(check)
        line = f"{'ok' if check.ok else 'DIFFERS':<9}{check.thing}"
        line += f": {check.problem or check.note}" if check.problem or check.note else ""
        if json_lines:
            line = json.dumps({**asdict(check), "ok": check.ok}, ensure_ascii=False)
        print_line(console, line)
    if not json_lines and any(_can_be_restored(run, check) for check in checks):
        print_line(console, f"step 0 is the base model: {command('train', '--resume', path)}  restores it")
    return all(check.ok for check in checks)


def _can_be_restored(run: RunFolder, check: Check) -> bool:
    """Return whether a check concerns the model that the run begins with, of which other copies may be intact."""
    first = f"{run.checkpoints.name}/{checkpoint_name(0)}"
    return not check.ok and check.thing == first and "base" in run.read_manifest(sealed=False)
