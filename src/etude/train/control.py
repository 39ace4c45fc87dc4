"""Control of a training from outside, through files in the run folder that the loop looks for once a step.

``control/pause`` holds it before its next step until the file is gone; ``control/one_step`` lets a held one make a
single step; ``control/save`` has it save a checkpoint, ``control/stop`` has it finish its step, save and end.
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

PAUSE, ONE_STEP, SAVE, STOP, GO_ON = "pause", "one_step", "save", "stop", "go_on"
ACTIONS = (PAUSE, GO_ON, ONE_STEP, SAVE, STOP)
BETWEEN_LOOKS = 0.05
"""Seconds, while it is held."""
HEARTBEAT = 5.0
"""Seconds between the signs of life of a run that is held."""

Stamp = tuple[int, int]


class Hold(Protocol):
    """Something that may keep the loop waiting before a step. The time that it waits is not time of training."""

    def due(self) -> bool: ...

    def wait(self, step: int) -> None: ...


@dataclass
class Control:
    """The control files of the run at ``path``."""

    path: Path
    _ignored: dict[str, Stamp] = field(
        default_factory=dict
    )  # requests that are done and could not be removed

    @property
    def folder(self) -> Path:
        return self.path / "control"

    def asked(self) -> frozenset[str]:
        """What is asked for; some microseconds where nothing is. A folder asks for nothing, whatever its name."""
        try:
            with os.scandir(self.folder) as entries:
                there = {entry.name for entry in entries if not entry.is_dir(follow_symlinks=False)}
        except OSError:
            return frozenset()
        return frozenset(name for name in there if not self._is_ignored(name))

    @property
    def paused(self) -> bool:
        return PAUSE in self.asked()

    def ask(self, action: str) -> None:
        """Ask the training for one of ``ACTIONS``.

        Raises:
            InputError: there is no such action.
            EtudeError: the files cannot be written.
        """
        if action not in ACTIONS:
            raise InputError(f"'action' is one of {', '.join(ACTIONS)}")
        if action == GO_ON:
            self.take(PAUSE)
            return
        with suppress(FileExistsError):
            self.folder.mkdir()
        if action == ONE_STEP:
            write_atomic(self.folder / PAUSE, "")
        write_atomic(self.folder / action, "")

    def take(self, action: str) -> str | None:
        """Take a file away: what it asked for is done, or no longer wanted.

        One that cannot be removed is ignored from here on, until it is written again; why is returned.
        """
        file = self.folder / action
        try:
            found = file.lstat()
            if stat.S_ISDIR(found.st_mode):
                file.rmdir()  # only an empty one: what is in it was put there for another reason
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
    found = file.lstat()
    return found.st_ino, found.st_mtime_ns


@dataclass
class ControlledPause:
    """Keeps a training waiting while its ``control`` says so, or until ``released`` (because it is to stop).

    ``alive`` is told the step every few seconds meanwhile.
    """

    control: Control
    released: Callable[[], bool]
    alive: Callable[[int], None]

    def due(self) -> bool:
        return self.control.paused

    def wait(self, step: int) -> None:
        """Until it is to go on, or to make a single step."""
        told = 0.0
        while True:
            asked = self.control.requested()
            if PAUSE not in asked or self.released():
                return
            if ONE_STEP in asked:
                self.control.take(ONE_STEP)
                return
            if time.monotonic() - told > HEARTBEAT:
                told = time.monotonic()
                self.alive(step)
            time.sleep(BETWEEN_LOOKS)
