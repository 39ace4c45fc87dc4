"""What has become of a run: its state and its last sign of life, from its files and its lock."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, cast

from etude.files import STAGING_PREFIX
from etude.run.folder import RunFolder, is_run
from etude.system import is_locked, system_id
from etude.untrusted import readable

SILENCE = 120.0
"""Seconds without a sign of life after which a run that should be training is called lost."""
MOMENT = 2.0
"""Seconds that may pass between a process's last sign of life and the last line of its status."""
ENDED = ("finished", "stopped", "failed")
State = Literal[
    "not begun", "starting", "running", "lost", "finished", "stopped", "failed", "damaged", "unreadable"
]
"""See :func:`state_of`."""
LATEST = 2**33
"""Seconds since 1970; a later time is damage."""


def runs_in(folder: Path) -> Iterator[RunFolder]:
    """Yield the runs directly in a folder, and the folders that may be runs and cannot be looked into.

    Raises:
        Unreadable: this account may not read the folder.
    """
    with readable(folder):
        names = sorted(os.listdir(folder)) if folder.is_dir() else []
    for path in (folder / name for name in names if not name.startswith(STAGING_PREFIX)):
        try:
            if is_run(path):
                yield RunFolder(path)
        except PermissionError:
            yield RunFolder(path)


def state_of(run: RunFolder, status: dict[str, Any]) -> State:
    """Return what has become of a run with this ``status``.

    - ``unreadable``: this account may not read its files.
    - ``damaged``: it has no manifest.
    - ``starting`` and ``not begun``: nothing has been trained, and it was created just now or some time ago.
    - ``running``: a process holds it, or has been silent for a short while only.
    - ``lost``: its status says running, and its process has ended without a word: killed, or its machine failed.
    - ``finished``, ``stopped``, ``failed``: how its process ended.
    """
    needed = (run.settings_file, run.manifest_file, run.status_file, run.metrics.path)
    if not all(map(_may_be_read, needed)):
        return "unreadable"
    if not run.manifest_file.is_file():
        return "damaged"
    state = status.get("state")
    if state != "running" and state not in ENDED:
        return "starting" if time.time() - _created(run) < SILENCE else "not begun"
    if state == "running" and not is_locked(run.lock_file):
        # A lock ends with its process, but only a process of this system is known by it. Of a process on another
        # machine (a shared disk) the log is the only sign of life.
        local = bool(system_id()) and status.get("system") == system_id()
        if time.time() - heartbeat(run, status) > (MOMENT if local else SILENCE):
            return "lost"
    return cast(State, state)


def heartbeat(run: RunFolder, status: dict[str, Any]) -> float:
    """Return the time of the newest sign of life, in seconds since 1970: its status, or a line of its log."""
    value = status.get("heartbeat")
    signs = [float(value) if isinstance(value, int | float) and 0 <= value < LATEST else 0.0]
    with suppress(OSError):
        signs.append(run.metrics.path.stat().st_mtime)
    return max(signs)


def changed(run: RunFolder, status: dict[str, Any]) -> float:
    """Return when anything was last written to the run, in seconds since 1970."""
    return max(heartbeat(run, status), _created(run))


def _may_be_read(file: Path) -> bool:
    """Return whether this account may read a file; a missing file is missing for everybody."""
    try:
        # Opening a pipe without a writer would block for ever.
        os.close(os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)))
    except PermissionError:
        return False
    except OSError:
        pass
    return True


def _created(run: RunFolder) -> float:
    for place in (run.settings_file, run.path):
        with suppress(OSError):
            return place.stat().st_mtime
    return 0.0
