"""The run folder: everything known of a run, in plain files that are never half-written.

A file or folder is written beside its final name, flushed to disk and renamed, so that a crash at any
byte leaves the previous good state in place. Logs are appended a line at a time; a torn last line is
recognised and ignored when they are read.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude.errors import EtudeError, InputError
from etude.system import system_id
from etude.untrusted import (
    MAX_JSON_BYTES,
    MAX_LINE_BYTES,
    open_plain,
    read_plain,
    refuse_links_out,
    require_run_name,
    shown,
)

EVENT_SCHEMA = 1
STAGING_PREFIX = ".staging-"


def write_atomic(path: Path, content: bytes | str) -> None:
    """Replace the file at ``path`` with ``content``; readers see the old file or the new one, whole.

    Raises:
        EtudeError: the disk is full or not writable; the old file stays as it was.
    """
    # Half a surrogate pair, which JSON can spell, is no UTF-8.
    payload = content.encode("utf-8", "replace") if isinstance(content, str) else content
    temporary: str | None = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=STAGING_PREFIX, dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        _flush_folder(path.parent)
    except OSError as error:
        if temporary is not None:
            with suppress(OSError):
                os.unlink(temporary)
        raise write_failure(path, error) from error


def write_json(path: Path, value: Any) -> None:
    """:func:`write_atomic` of readable JSON."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """The JSON value in ``path``.

    Raises:
        InputError: missing, unreadable or damaged, naming the file.
    """
    try:
        return json.loads(read_plain(path, MAX_JSON_BYTES).decode("utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} is missing: is {path.parent} a complete folder of Etude?") from None
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is damaged ({shown(str(error))}): restore it or use another checkpoint"
        ) from None


def read_object(path: Path) -> dict[str, Any]:
    """:func:`read_json` where only an object will do."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise InputError(f"{path} is damaged (not a JSON object): restore it or use another run")
    return value


@contextmanager
def staged_folder(final: Path, *, replace: bool = True) -> Iterator[Path]:
    """A folder to fill, which takes the name ``final`` only when the block ends without an error.

    Raises:
        InputError: without ``replace``, somebody else has taken the name meanwhile.
        EtudeError: the disk is full or not writable; nothing is left behind and ``final`` is as it was.
    """
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        staging, lock = _new_staging(final)
    except OSError as error:
        raise write_failure(final, error) from error
    try:
        yield staging
        _flush_tree(staging)
        os.chmod(staging, 0o777 & ~_umask())
        replaced = staging.with_name(f"{staging.name}-replaced")
        if final.exists() and not replace:
            raise InputError(f"{final} was made by another process meanwhile: try again")
        if final.exists():  # moved aside, not removed: between the two renames nothing is half there
            os.replace(final, replaced)
        os.replace(staging, final)
        _flush_folder(final.parent)
        shutil.rmtree(replaced, ignore_errors=True)
    except OSError as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise write_failure(final, error) from error
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    finally:
        if lock is not None:
            os.close(lock)


def sweep_staging(parent: Path) -> None:
    """Remove the folders that killed processes left half-filled in ``parent``; one that is being filled stays.

    Whoever fills a folder holds a lock on it, which ends with the process. Where there are no locks, nothing goes.
    """
    for folder in parent.glob(f"{STAGING_PREFIX}*/"):
        with suppress(OSError):  # renamed or removed meanwhile, or somebody else's
            lock = _lock(folder, wait=False)
            if lock is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)


def write_failure(path: Path, error: OSError) -> EtudeError:
    """The one line for a write that the system refused."""
    cause = error.strerror or error
    full = error.errno in (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))
    advice = "free some space or choose another folder" if full else "choose a folder that can be written"
    return EtudeError(f"could not write {path}: {cause}; {advice}")


def hash_file(path: Path) -> str:
    """BLAKE2b-128 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def hash_bytes(content: bytes) -> str:
    """:func:`hash_file` of a file with this content."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _new_staging(final: Path) -> tuple[Path, int | None]:
    """A new folder beside ``final``, and the descriptor that locks it (None where there are no locks)."""
    while True:
        staging = Path(tempfile.mkdtemp(prefix=f"{STAGING_PREFIX}{final.name}-", dir=final.parent))
        with suppress(FileNotFoundError):
            lock = _lock(staging, wait=True)
            if staging.is_dir():
                return staging, lock
            if lock is not None:  # a sweep came between the making and the locking
                os.close(lock)


def _lock(folder: Path, *, wait: bool) -> int | None:
    """A descriptor that locks ``folder`` until it is closed; None when it is locked or cannot be."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _umask() -> int:
    """The permissions that this person's new files do not get; it can only be read by setting it."""
    current = os.umask(0o077)
    os.umask(current)
    return current


def _flush_tree(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    _flush_folder(folder)


def _flush_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open a folder; its rename is already durable enough
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _line(event: dict[str, Any]) -> str:
    # NaN is no JSON, and half a surrogate pair is no UTF-8: either would make a line that others cannot read.
    text = json.dumps(event, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "replace").decode("utf-8") + "\n"


class JsonLines:
    """An append-only log, one JSON object a line; a line is written whole or recognised as torn."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, *events: dict[str, Any]) -> None:
        """Add a line for each event and hand them to the operating system at once."""
        try:
            with self.path.open("ab") as file:
                file.write("".join(map(_line, events)).encode("utf-8"))
        except OSError as error:
            raise write_failure(self.path, error) from error

    def sync(self) -> None:
        """Have everything on disk before something else may rely on it."""
        if self.path.exists():
            descriptor = os.open(self.path, os.O_RDWR)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def read(self) -> list[dict[str, Any]]:
        """Every whole line; a torn or damaged one is left out."""
        return [event for _, event in self._lines()]

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

    def _lines(self) -> Iterator[tuple[bytes, dict[str, Any]]]:
        """The bytes of each whole line, without its end, and what they say."""
        if not self.path.is_file():
            return
        with open_plain(self.path) as file:
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

    def remove_leftovers(self) -> None:
        """Remove what a process that was killed had begun to write. Only for who holds the run."""
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
            raise InputError(f"{path} exists already: choose another --name, or go on with --resume {path}")
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run.

        Raises:
            InputError: there is no run at ``path``, or a link in it leads out of it.
        """
        if not (path / "run.toml").is_file():
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
