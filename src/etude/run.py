"""The run folder: everything known of a run, in plain files that are never half-written (:mod:`etude.files`).

Logs are appended a line at a time; a torn last line is recognised and ignored when they are read.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude.errors import InputError
from etude.files import (
    SEALED_SCHEMA,
    STAGING_PREFIX,
    flush_file,
    flush_folder,
    new_hash,
    read_json,
    read_sealed,
    recover_replaced,
    write_atomic,
    write_failure,
    write_json,
    write_sealed,
)
from etude.messages import quoted
from etude.system import system_id
from etude.untrusted import MAX_LINE_BYTES, open_plain, readable, refuse_links_out, require_run_name

EVENT_SCHEMA = 1
HASHED_AT_ONCE = 1 << 20


def _line(event: dict[str, Any]) -> str:
    # NaN is no JSON, and half a surrogate pair is no UTF-8: either would make a line that others cannot read.
    text = json.dumps(event, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "replace").decode("utf-8") + "\n"


@dataclass(frozen=True)
class Prefix:
    """How a log begins: so many bytes, and their BLAKE2b-128 in hexadecimal."""

    num_bytes: int
    hash: str


class JsonLines:
    """An append-only log, one JSON object a line; a line is written whole or recognised as torn."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._running = new_hash()
        self._hashed: int | None = None  # bytes in the running hash; None before anybody wants it

    def append(self, *events: dict[str, Any]) -> None:
        """Add a line for each event and hand them to the operating system at once."""
        content = "".join(map(_line, events)).encode("utf-8")
        try:
            with self.path.open("ab") as file:
                file.write(content)
        except OSError as error:
            raise write_failure(self.path, error) from error
        if self._hashed is not None:
            self._running.update(content)
            self._hashed += len(content)

    def sync(self) -> None:
        """Have everything on disk before something else may rely on it."""
        try:
            if self.path.exists():
                flush_file(self.path)
                flush_folder(self.path.parent)
        except OSError as error:
            raise write_failure(self.path, error) from error

    def prefix(self) -> Prefix:
        """All that is in the log now. The file is read once; what is appended through this object is hashed as it goes.

        A run of a million steps notes this at every checkpoint, and must not read its whole record for it.
        """
        if self._hashed is None:
            self._hashed = sum(map(len, self._hashing(self._running)))
        return Prefix(self._hashed, self._running.hexdigest())

    def prefixes(self, lengths: Iterable[int]) -> dict[int, str | None]:
        """The hash of the first bytes, for each of several ``lengths``, in one reading; None for one beyond the end."""
        found: dict[int, str | None] = {}
        running, hashed = new_hash(), 0
        for length in sorted(set(lengths)):
            hashed += sum(map(len, self._hashing(running, hashed, length - hashed)))
            found[length] = running.hexdigest() if hashed == length else None
        return found

    def begins_with(self, prefix: Prefix) -> bool:
        """Whether the log's first bytes are those of ``prefix``."""
        return self.prefixes([prefix.num_bytes])[prefix.num_bytes] == prefix.hash

    def cut_to(self, prefix: Prefix) -> None:
        """Forget everything behind ``prefix``, with which the log begins."""
        try:
            if self.path.exists() and self.path.stat().st_size > prefix.num_bytes:
                os.truncate(self.path, prefix.num_bytes)
                self.sync()
                self._running, self._hashed = new_hash(), None
        except OSError as error:
            raise write_failure(self.path, error) from error

    def _hashing(self, running: Any, start: int = 0, most: int | None = None) -> Iterator[bytes]:
        """Add the bytes from ``start`` on, at most ``most``, to a hash, a piece at a time."""
        if not self.path.is_file():
            return
        with self.path.open("rb") as file:
            file.seek(start)
            while piece := file.read(HASHED_AT_ONCE if most is None else min(HASHED_AT_ONCE, most)):
                running.update(piece)
                most = None if most is None else most - len(piece)
                yield piece

    def read(self) -> list[dict[str, Any]]:
        """Every whole line; a torn or damaged one is left out."""
        return list(self.events())

    def events(self) -> Iterator[dict[str, Any]]:
        """What :meth:`read` returns, one at a time: the log of a million steps has gigabytes of events."""
        return (event for _, event in self._lines())

    def cut_back(self, step: int) -> None:
        """Forget lines after ``step``, so that no step stands twice when a run goes on from there.

        What stays keeps its bytes; damaged lines go.
        """
        kept = [
            line + b"\n"
            for line, event in self._lines()
            if event.get("step", 0) <= step and event.get("event") != "end"
        ]
        write_atomic(self.path, b"".join(kept))
        self._running, self._hashed = new_hash(), None

    def _lines(self) -> Iterator[tuple[bytes, dict[str, Any]]]:
        """The bytes of each whole line, without its end, and what they say."""
        with readable(self.path):
            if not self.path.is_file():
                return
            file = open_plain(self.path)
        with file:
            while line := file.readline(MAX_LINE_BYTES):
                while len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
                    line = file.readline(MAX_LINE_BYTES)  # to the end of a line that is none of ours
                with suppress(ValueError, UnicodeDecodeError, RecursionError):
                    event = json.loads(line)
                    if isinstance(event, dict) and isinstance(event.get("step", 0), int):
                        yield line.removesuffix(b"\n"), event


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run and the few files that every part of Etude reads or writes."""

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
    def ladder_file(self) -> Path:
        return self.path / "ladder.json"

    @property
    def tokenizer(self) -> Path:
        return self.path / "tokenizer"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def aside(self) -> Path:
        """Where what did not verify is put; nothing there is ever read or removed."""
        return self.path / "set-aside"

    @property
    def metrics(self) -> JsonLines:
        return JsonLines(self.path / "metrics.jsonl")

    @property
    def samples(self) -> JsonLines:
        return JsonLines(self.path / "samples.jsonl")

    def write_status(self, state: str, step: int, reason: str = "") -> None:
        """status.json: ``state`` is running, finished, stopped or failed; the time is the heartbeat."""
        write_json(
            self.path / "status.json",
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
        """status.json, or an empty object when there is none that can be read."""
        with suppress(InputError):
            value = read_json(self.path / "status.json")
            if isinstance(value, dict):
                return value
        return {}

    def read_manifest(self) -> dict[str, Any]:
        """manifest.json.

        Raises:
            InputError: missing, damaged or edited.
        """
        return read_sealed(self.manifest_file)

    def write_manifest(self, content: dict[str, Any]) -> None:
        """manifest.json with the digest of its content."""
        write_sealed(self.manifest_file, {**content, "schema": SEALED_SCHEMA})

    def set_aside(self, path: Path, *, copy: bool = False) -> Path:
        """Move a file or folder of the run that does not verify, or ``copy`` a file, to where it is kept.

        Returns its new place. Raises EtudeError when the system refuses.
        """
        place = self.aside / free_name(self.aside, path.name)
        try:
            self.aside.mkdir(exist_ok=True)
            if copy:
                shutil.copyfile(path, place)
                flush_file(place)
            else:
                path.rename(place)
            for folder in (self.aside, path.parent, self.path):
                flush_folder(folder)
        except OSError as error:
            raise write_failure(place, error) from error
        return place

    def remove_leftovers(self) -> None:
        """Remove what a process that was killed had begun to write. Only for who holds the run."""
        recover_replaced(self.checkpoints)
        for leftover in (*self.path.glob(f"{STAGING_PREFIX}*"), *self.checkpoints.glob(f"{STAGING_PREFIX}*")):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else trains this run meanwhile; a process that dies lets go of it.

        Raises:
            InputError: another process is training it.
        """
        # Not followed: a link in a run from elsewhere would have another file emptied.
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        try:
            descriptor = os.open(self.path / ".lock", flags, 0o666)
        except OSError as error:
            raise write_failure(self.path / ".lock", error) from error
        with os.fdopen(descriptor, "w") as handle:
            try:
                import fcntl

                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except ImportError:  # Windows
                pass
            except BlockingIOError:
                raise InputError(f"{self.path} is being trained by another process: wait for it") from None
            yield

    @classmethod
    def new(cls, folder: Path, name: str) -> RunFolder:
        """The place of a run that does not exist yet; nothing is made.

        Raises:
            InputError: the name is not a plain folder name, or it is taken.
        """
        require_run_name(name)
        path = folder / name
        if path.exists():
            raise InputError(
                f"{path} exists already: choose another --name, or go on with --resume {quoted(path)}"
            )
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run.

        Raises:
            InputError: there is no run at ``path``, or a link in it leads out of it.
        """
        with readable(path / "run.toml"):
            found = (path / "run.toml").is_file()
        if not found:
            known = sorted(file.parent.name for file in path.parent.glob("*/run.toml"))[:5]
            hint = f"runs there: {', '.join(known)}" if known else "`etude runs` lists the runs there are"
            raise InputError(f"{path} is not a run folder (no run.toml in it); {hint}")
        refuse_links_out(path)
        return cls(path)


def free_name(folder: Path, stem: str) -> str:
    """``stem``, or ``stem-2``, ``stem-3``, ... : the first that no run in ``folder`` has."""
    stem = stem.encode("utf-8", "replace")[:180].decode("utf-8", "ignore")  # a file's name may be longer
    names = (f"{stem}-{number}" if number > 1 else stem for number in range(1, 2**31))
    return next(name for name in names if not (folder / name).exists())
