"""Control a training from outside, through files in the run folder that the loop checks before every step.

``control/pause`` pauses it until the file is removed; ``control/one_step`` lets a paused training make a single step;
``control/save`` makes it save a checkpoint; ``control/stop`` makes it finish its step, save and end.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from etude.errors import InputError
from etude.files import write_atomic

PAUSE, ONE_STEP, SAVE, STOP, CONTINUE = "pause", "one_step", "save", "stop", "go_on"
ACTIONS = (PAUSE, CONTINUE, ONE_STEP, SAVE, STOP)
POLL_SECONDS = 0.05
"""Seconds between two checks of the files during a pause."""
HEARTBEAT = 5.0
"""Seconds between the heartbeats of a paused run."""

Stamp = tuple[int, int]
"""Inode and modification time of a file."""


class Pause(Protocol):
    """May pause the loop before a step. A pause does not count as time of training."""

    def due(self) -> bool:
        """Return whether to pause now."""

    def wait(self, step: int) -> None:
        """Wait for the end of the pause after ``step``."""


@dataclass
class Control:
    """Read and write the control files of the run at ``path``."""

    path: Path
    # Requests that are done, whose files could not be removed.
    _ignored: dict[str, Stamp] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.path / "control"

    def requested(self) -> frozenset[str]:
        """Return the requested actions. Takes microseconds without any. Folders are ignored, whatever their name."""
        try:
            with os.scandir(self.folder) as entries:
                there = {entry.name for entry in entries if not entry.is_dir(follow_symlinks=False)}
        except OSError:
            return frozenset()
        return frozenset(name for name in there if not self._is_ignored(name))

    @property
    def paused(self) -> bool:
        return PAUSE in self.requested()

    def request(self, action: str) -> None:
        """Request one of ``ACTIONS`` from the training.

        Raises:
            InputError: there is no such action.
            EtudeError: the files cannot be written.
        """
        if action not in ACTIONS:
            raise InputError(f"'action' is one of {', '.join(ACTIONS)}")
        if action == CONTINUE:
            self.take(PAUSE)
            return
        with suppress(FileExistsError):
            self.folder.mkdir()
        if action == ONE_STEP:
            write_atomic(self.folder / PAUSE, "")
        write_atomic(self.folder / action, "")

    def take(self, action: str) -> str | None:
        """Remove the file of a request that is done or withdrawn.

        A file that cannot be removed is ignored until it is written again. Returns a line on why, else None.
        """
        file = self.folder / action
        try:
            if stat.S_ISDIR(file.lstat().st_mode):
                file.rmdir()  # an empty folder only: the content of another one is not a request
            else:
                file.unlink()
        except FileNotFoundError:
            return None
        except OSError as error:
            with suppress(OSError):
                self._ignored[action] = _stamp(file)
            return f"{file} cannot be removed ({error.strerror}) and is ignored: remove it to use it again"
        return None

    def clear(self) -> list[str]:
        """Remove the requests of an earlier session; return a line for each file that could not be removed."""
        return [problem for problem in map(self.take, ACTIONS) if problem is not None]

    def _is_ignored(self, name: str) -> bool:
        if name not in self._ignored:
            return False
        with suppress(OSError):
            return _stamp(self.folder / name) == self._ignored[name]
        return False


def _stamp(file: Path) -> Stamp:
    status = file.lstat()
    return status.st_ino, status.st_mtime_ns


@dataclass
class ControlledPause:
    """Pause a training while its ``control`` has a request for it.

    Attributes:
        released: returns whether to end the pause early, because the run has to stop.
        heartbeat: called with the step every few seconds during a pause.
    """

    control: Control
    released: Callable[[], bool]
    heartbeat: Callable[[int], None]

    def due(self) -> bool:
        """Return whether a pause is requested."""
        return self.control.paused

    def wait(self, step: int) -> None:
        """Wait until the request for the pause is withdrawn, or a single step is requested."""
        last_heartbeat = 0.0
        while True:
            requested = self.control.requested()
            if PAUSE not in requested or self.released():
                return
            if ONE_STEP in requested:
                self.control.take(ONE_STEP)
                return
            if time.monotonic() - last_heartbeat > HEARTBEAT:
                last_heartbeat = time.monotonic()
                self.heartbeat(step)
            time.sleep(POLL_SECONDS)
