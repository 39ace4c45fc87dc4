"""The state of a run and its last sign of life, from its files and its lock."""

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

LOST_AFTER = 120.0
"""Seconds without a sign of life after which a run that should be training counts as lost."""
STATUS_DELAY = 2.0
"""Seconds that a process may need from its last sign of life to writing its final status."""
ENDED = ("finished", "stopped", "failed")
State = Literal[
    "not begun", "starting", "running", "lost", "finished", "stopped", "failed", "damaged", "unreadable"
]
"""See :func:`state_of`."""
LATEST_TIME = 2**33
"""The latest plausible time of a heartbeat, in seconds since 1970 (the year 2242)."""


def runs_in(folder: Path) -> Iterator[RunFolder]:
    """Yield the runs directly in ``folder``, and the folders that this account may not search, which may be runs.

    Raises:
        Unreadable: this account may not read ``folder``.
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
    """Return the state of a run with this ``status``.

    - ``unreadable``: this account may not read its files.
    - ``damaged``: it has no manifest.
    - ``starting`` and ``not begun``: no step was trained; it was created less or more than ``LOST_AFTER`` seconds ago.
    - ``running``: a process holds its lock, or gave a sign of life recently.
    - ``lost``: its status is "running", but its process was killed or its machine failed.
    - ``finished``, ``stopped``, ``failed``: the state in which its process ended.
    """
    needed = (run.settings_file, run.manifest_file, run.status_file, run.metrics.path)
    if not all(map(_may_be_read, needed)):
        return "unreadable"
    if not run.manifest_file.is_file():
        return "damaged"
    state = status.get("state")
    if state != "running" and state not in ENDED:
        return "starting" if time.time() - _created(run) < LOST_AFTER else "not begun"
    if state == "running" and not is_locked(run.lock_file):
        # Only locks of this system are visible. For a process on another machine (shared disk) or in another container,
        # the heartbeat and the log are the only signs of life.
        local = bool(system_id()) and status.get("system") == system_id()
        if time.time() - heartbeat(run, status) > (STATUS_DELAY if local else LOST_AFTER):
            return "lost"
    return cast(State, state)


def heartbeat(run: RunFolder, status: dict[str, Any]) -> float:
    """Return the time of the newest sign of life, in seconds since 1970: a heartbeat, or a line of metrics.jsonl."""
    value = status.get("heartbeat")
    signs = [float(value) if isinstance(value, int | float) and 0 <= value < LATEST_TIME else 0.0]
    with suppress(OSError):
        signs.append(run.metrics.path.stat().st_mtime)
    return max(signs)


def last_change(run: RunFolder, status: dict[str, Any]) -> float:
    """Return the time of the last write to the run, in seconds since 1970."""
    return max(heartbeat(run, status), _created(run))


def _may_be_read(file: Path) -> bool:
    """Return whether this account may read a file; True if the file is missing."""
    try:
        # Without O_NONBLOCK, opening a pipe that has no writer blocks forever.
        os.close(os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)))
    except PermissionError:
        return False
    except OSError:
        pass
    return True


def _created(run: RunFolder) -> float:
    """Return the time of the last write of run.toml, or else of the folder, in seconds since 1970."""
    for place in (run.settings_file, run.path):
        with suppress(OSError):
            return place.stat().st_mtime
    return 0.0
