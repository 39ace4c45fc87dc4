"""What has become of a run: its state and its last sign of life, from its files and its lock."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from etude.files import STAGING_PREFIX
from etude.run import RunFolder
from etude.system import is_locked, system_id
from etude.untrusted import readable

SILENCE = 120.0
"""Seconds without a sign of life after which a run that should be training is called lost."""
MOMENT = 2.0
"""Seconds between a process's last sign of life and the last line of its status, at most."""
ENDED = ("finished", "stopped", "failed")
LATEST = 2**33
"""Seconds since 1970; a time beyond that is damage."""


def runs_in(folder: Path) -> Iterator[RunFolder]:
    """The runs directly in a folder, and what may be one and cannot be looked into; none where there is no folder.

    Raises:
        Unreadable: this account may not read the folder.
    """
    with readable(folder):
        names = sorted(os.listdir(folder)) if folder.is_dir() else []
    for path in (folder / name for name in names if not name.startswith(STAGING_PREFIX)):
        try:
            if (path / "run.toml").is_file():
                yield RunFolder(path)
        except PermissionError:
            yield RunFolder(path)


def state_of(run: RunFolder, status: dict[str, Any]) -> str:
    """What has become of a run with this ``status``, as ``etude runs``, the doctor and the page say it.

    - ``unreadable``: this account may not read its files.
    - ``damaged``: it has no manifest.
    - ``starting`` and ``not begun``: nothing has been trained, and it was made just now or some time ago.
    - ``running``: a process holds it, or is silent for a short while.
    - ``lost``: its status says running and its process has ended without a word: killed, or its machine failed.
    - ``finished``, ``stopped``, ``failed``: how its process ended.
    """
    if not all(map(_may_be_read, (run.settings_file, run.manifest_file, run.path / "status.json"))):
        return "unreadable"
    if not run.manifest_file.is_file():
        return "damaged"
    state = status.get("state")
    if state != "running" and state not in ENDED:
        return "starting" if time.time() - _made(run) < SILENCE else "not begun"
    if state == "running" and not is_locked(run.path / ".lock"):
        # The lock of a process of this system ends with it, at once; of another machine's nothing is heard but its log.
        seen = bool(system_id()) and status.get("system") == system_id()
        if time.time() - heartbeat(run, status) > (MOMENT if seen else SILENCE):
            return "lost"
    return str(state)


def heartbeat(run: RunFolder, status: dict[str, Any]) -> float:
    """The newest sign of life, in seconds since 1970: its status, or a line of its log."""
    told = status.get("heartbeat")
    signs = [float(told) if isinstance(told, int | float) and 0 <= told < LATEST else 0.0]
    with suppress(OSError):
        signs.append(run.metrics.path.stat().st_mtime)
    return max(signs)


def changed(run: RunFolder, status: dict[str, Any]) -> float:
    """When anything was last written to it, in seconds since 1970."""
    return max(heartbeat(run, status), _made(run))


def _may_be_read(file: Path) -> bool:
    """Whether this account may; a missing file is missing for everybody."""
    try:
        # Opening a pipe without a writer would block for ever.
        os.close(os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)))
    except PermissionError:
        return False
    except OSError:
        pass
    return True


def _made(run: RunFolder) -> float:
    for place in (run.settings_file, run.path):
        with suppress(OSError):
            return place.stat().st_mtime
    return 0.0
