"""``etude doctor RUN --verify``: print the checks of :mod:`etude.run.verify`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from etude.run import RunFolder
from etude.run.verify import verify
from etude.show.lines import print_line


def show(path: Path, console: Console, *, json_lines: bool = False) -> bool:
    """Print a line for each file of the run at ``path``, and return whether all agree with their checksums.

    Raises:
        InputError: there is no run.
    """
    checks = []
    for check in verify(RunFolder.open(path)):
        checks.append(check)
        line = f"{'ok' if check.ok else 'DIFFERS':<9}{check.thing}"
        line += f": {check.problem or check.note}" if check.problem or check.note else ""
        if json_lines:
            line = json.dumps({**asdict(check), "ok": check.ok}, ensure_ascii=False)
        print_line(console, line)
    return all(check.ok for check in checks)
