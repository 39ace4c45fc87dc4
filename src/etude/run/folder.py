"""The layout of a run folder, with its status, manifest and lock.

::

    runs/NAME/
      run.toml         the settings, all resolved
      manifest.json    where the run came from, its sessions, later changes of settings, hashes of its files
      status.json      state, step and heartbeat of the training process
      metrics.jsonl    events of the training, one JSON object per line
      samples.jsonl    the texts that the model generated during training
      probes.jsonl     results of `etude eval` at its checkpoints
      tuning.jsonl     what a tuning gained and cost at its checkpoints, by `etude eval --suite tuning`
      ladder.json      scores of the n-gram models that its loss is compared with
      reference.safetensors   what the loss needs of the network at step 0, for a loss that does
      tokenizer/       copied into every checkpoint
      checkpoints/     step-00000000/ ...: see etude.run.checkpoints
      control/         requests to the training process: pause, save, stop
      set-aside/       files and checkpoints that did not verify

Files are written under a temporary name and renamed (:mod:`etude.files`), so none is ever half-written.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude.errors import InputError
from etude.files import (
    STAGING_PREFIX,
    flush_file,
    flush_folder,
    read_json,
    read_object,
    read_sealed,
    recover_replaced,
    write_failure,
    write_json,
    write_sealed,
)
from etude.messages import quoted
from etude.run.log import EVENT_SCHEMA, JsonLines
from etude.system import system_id
from etude.untrusted import readable, refuse_links_out, require_run_name

MANIFEST_SCHEMA = 3
"""1: the first edition, without a digest. 2: with a digest. 3: "sessions" instead of "sittings"."""
SESSIONS = "sessions"
PROBES = "probes.jsonl"
TUNING = "tuning.jsonl"


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run. Reads and writes its status and its manifest."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def settings_file(self) -> Path:
        return self.path / "run.toml"

    @property
    def manifest_file(self) -> Path:
        return self.path / "manifest.json"

    @property
    def status_file(self) -> Path:
        return self.path / "status.json"

    @property
    def ladder_file(self) -> Path:
        return self.path / "ladder.json"

    @property
    def constants_file(self) -> Path:
        return self.path / "reference.safetensors"

    @property
    def lock_file(self) -> Path:
        return self.path / ".lock"

    @property
    def tokenizer(self) -> Path:
        return self.path / "tokenizer"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def set_aside_folder(self) -> Path:
        """The folder for files and checkpoints that did not verify. Etude never reads or removes them."""
        return self.path / "set-aside"

    @property
    def metrics(self) -> JsonLines:
        return JsonLines(self.path / "metrics.jsonl")

    @property
    def samples(self) -> JsonLines:
        return JsonLines(self.path / "samples.jsonl")

    @property
    def probes(self) -> JsonLines:
        return JsonLines(self.path / PROBES)

    @property
    def tuning(self) -> JsonLines:
        return JsonLines(self.path / TUNING)

    @property
    def logs(self) -> dict[str, JsonLines]:
        """The logs that training writes, by file name."""
        return {log.path.name: log for log in (self.metrics, self.samples)}

    def write_status(self, state: str, step: int, reason: str = "") -> None:
        """Write status.json with the current time as the heartbeat; ``state``: running, finished, stopped or failed."""
        write_json(
            self.status_file,
            {
                "schema": EVENT_SCHEMA,
                "state": state,
                "step": step,
                "heartbeat": time.time(),
                "system": system_id(),
                "reason": reason,
            },
        )

    def status(self) -> dict[str, Any]:
        """Return the content of status.json; empty if it is missing or damaged."""
        with suppress(InputError):
            value = read_json(self.status_file)
            if isinstance(value, dict):
                return value
        return {}

    def read_manifest(self, *, sealed: bool = True) -> dict[str, Any]:
        """Return the content of manifest.json. Keys of earlier editions get their current names.

        With ``sealed=False`` an edited manifest is accepted too: a reader that changes nothing need not refuse it.

        Raises:
            InputError: the manifest is missing or damaged, or (if ``sealed``) edited or of a later edition.
        """
        file = self.manifest_file
        content = read_sealed(file, MANIFEST_SCHEMA) if sealed else read_object(file)
        if "sittings" in content:  # the key before schema 3
            content.setdefault(SESSIONS, content.pop("sittings"))
        return content

    def write_manifest(self, content: dict[str, Any]) -> None:
        """Write manifest.json with the digest of its content."""
        write_sealed(self.manifest_file, {**content, "schema": MANIFEST_SCHEMA})

    def set_aside(self, path: Path, *, copy: bool = False) -> Path:
        """Move ``path``, which does not verify, into :attr:`set_aside_folder`, or ``copy`` it there.

        Returns its new path.

        Raises:
            EtudeError: it cannot be moved or copied.
        """
        target = self.set_aside_folder / free_name(self.set_aside_folder, path.name)
        try:
            self.set_aside_folder.mkdir(exist_ok=True)
            if copy:
                shutil.copyfile(path, target)
                flush_file(target)
            else:
                path.rename(target)
            for folder in (self.set_aside_folder, path.parent, self.path):
                flush_folder(folder)
        except OSError as error:
            raise write_failure(target, error) from error
        return target

    def remove_leftovers(self) -> None:
        """Remove the incomplete files and folders of killed processes. Requires the lock of the run."""
        recover_replaced(self.checkpoints)
        for leftover in (*self.path.glob(f"{STAGING_PREFIX}*"), *self.checkpoints.glob(f"{STAGING_PREFIX}*")):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the run within the block. The system releases the lock when the process ends, even if it is killed.

        Raises:
            InputError: another process is training the run.
        """
        # Do not follow links: opening for writing empties the file, and a link in an untrusted run may name any file.
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        try:
            descriptor = os.open(self.lock_file, flags, 0o666)
        except OSError as error:
            raise write_failure(self.lock_file, error) from error
        with os.fdopen(descriptor, "w") as handle:
            try:
                import fcntl

                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except ImportError:  # Windows
                pass
            except BlockingIOError:
                raise InputError(
                    f"{self.path} is being trained by another process: wait until it ends"
                ) from None
            yield

    @classmethod
    def new(cls, folder: Path, name: str) -> RunFolder:
        """Return the folder for a new run, without creating it.

        Raises:
            InputError: ``name`` is not a plain folder name, or is taken.
        """
        require_run_name(name)
        path = folder / name
        if path.exists():
            raise InputError(
                f"{path} already exists: choose another --name, or continue that run with --resume {quoted(path)}"
            )
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Return an existing run.

        Raises:
            InputError: ``path`` is not a run folder, or has a link that leads out of it.
        """
        with readable(path / "run.toml"):
            exists = is_run(path)
        if not exists:
            known = sorted(file.parent.name for file in path.parent.glob("*/run.toml"))[:5]
            hint = f"runs there: {', '.join(known)}" if known else "`etude runs` lists the existing runs"
            raise InputError(f"{path} is not a run folder (no run.toml in it); {hint}")
        refuse_links_out(path)
        return cls(path)


def is_run(path: Path) -> bool:
    """Return whether ``path`` is a run folder.

    Raises:
        PermissionError: this account may not search the folder.
    """
    return (path / "run.toml").is_file()


def is_of_run(path: Path) -> bool:
    """Return whether ``path`` is a run folder, or a checkpoint in one."""
    return is_run(path) or is_run(path.resolve().parent.parent)


def free_name(folder: Path, stem: str) -> str:
    """Return the first of ``stem``, ``stem-2``, ``stem-3``, ... that is not taken in ``folder``."""
    # Shortened: the name of a source file may be longer than that of a run (`etude.untrusted.require_run_name`).
    stem = stem.encode("utf-8", "replace")[:180].decode("utf-8", "ignore")
    names = (f"{stem}-{number}" if number > 1 else stem for number in range(1, 2**31))
    return next(name for name in names if not (folder / name).exists())
