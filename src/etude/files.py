"""Files that are never half-written: atomic writes, staged folders, locks, JSON and checksums.

A file or folder is written beside its final name, flushed to disk and renamed, so that a crash at any
byte leaves the previous good state in place.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from etude.errors import EtudeError, InputError
from etude.untrusted import MAX_JSON_BYTES, Unreadable, read_plain, shown

STAGING_PREFIX = ".staging-"
REPLACED_SUFFIX = "-replaced"
DIGEST = "digest"
"""The key under which a sealed JSON object holds the digest of the rest."""
FIRST_SCHEMA, SEALED_SCHEMA = 1, 2
"""Of JSON objects of the first edition, and of those with a digest."""


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
        flush_folder(path.parent)
    except OSError as error:
        if temporary is not None:
            with suppress(OSError):
                os.unlink(temporary)
        raise write_failure(path, error) from error


def write_json(path: Path, value: Any) -> None:
    """:func:`write_atomic` of readable JSON."""
    write_atomic(path, json_text(value))


def json_safe(value: Any) -> Any:
    """Return ``value`` with None in place of NaN and infinities, which JSON lacks, and lists in place of tuples."""
    if isinstance(value, dict):
        return {key: json_safe(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [json_safe(member) for member in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def json_text(value: Any) -> str:
    """What :func:`write_json` writes."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


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


def write_sealed(path: Path, value: dict[str, Any]) -> None:
    """:func:`write_json` of an object with the digest of its own content, which :func:`read_sealed` checks."""
    write_json(path, {**value, DIGEST: json_digest(value)})


def read_sealed(path: Path, newest: int = SEALED_SCHEMA) -> dict[str, Any]:
    """Return the object in ``path``, which :func:`write_sealed` wrote, of a schema up to ``newest``.

    Objects of the first edition have no digest.

    Raises:
        InputError: missing, damaged or edited, or written by a later edition.
    """
    value = read_object(path)
    schema = value.get("schema", FIRST_SCHEMA)
    # The type is compared too: True equals 1.
    if type(schema) is not int or not FIRST_SCHEMA <= schema <= newest:
        raise InputError(f"{path} has schema {shown(schema)}; this etude reads up to {newest}: update it")
    # A first edition with a digest is one whose schema was changed.
    sealed = schema != FIRST_SCHEMA or DIGEST in value
    if sealed and value.get(DIGEST) != json_digest(value):
        raise InputError(
            f"{path} is damaged or was edited (its digest is not that of its content): restore it"
        )
    return value


def json_digest(value: dict[str, Any]) -> str:
    """BLAKE2b-128 of the content of a JSON object besides its digest, whatever its spacing and order of keys."""
    content = {key: entry for key, entry in value.items() if key != DIGEST}
    return hash_bytes(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())


@contextmanager
def staged_folder(final: Path, *, replace: bool = True) -> Iterator[Path]:
    """A folder to fill, which takes the name ``final`` only when the block ends without an error.

    Raises:
        InputError: without ``replace``, another process has taken the name meanwhile.
        EtudeError: the disk is full or not writable; nothing is left behind and ``final`` is as it was.
    """
    try:
        _make_folders(final.parent)
        staging, lock = _new_staging(final)
    except OSError as error:
        raise write_failure(final, error) from error
    try:
        yield staging
        _flush_tree(staging)
        os.chmod(staging, 0o777 & ~_umask())
        if final.exists() and not replace:
            raise InputError(f"{final} was made by another process meanwhile: try again")
        replaced = _exchange(staging, final)
        flush_folder(final.parent)
        if replaced is not None:
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


def _exchange(staging: Path, final: Path) -> Path | None:
    """Give ``staging`` the name ``final``; returns where the folder that had it is now, None if there was none."""
    if not final.exists():
        os.replace(staging, final)
        return None
    # Moved aside, not removed: between the two renames nothing is half there (see `recover_replaced`).
    replaced = staging.with_name(f"{staging.name}{REPLACED_SUFFIX}")
    os.replace(final, replaced)
    try:
        os.replace(staging, final)
    except BaseException:
        os.replace(replaced, final)
        raise
    return replaced


def _make_folders(folder: Path) -> None:
    """``folder`` and those above it, each known to the disk: a folder in one that a crash undoes would be gone."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for place in missing:
        flush_folder(place.parent)


def recover_replaced(parent: Path) -> None:
    """Give its name back to each folder that a process had moved aside when it died, before another took the name."""
    for aside in parent.glob(f"{STAGING_PREFIX}*{REPLACED_SUFFIX}"):
        name = aside.name.removeprefix(STAGING_PREFIX).removesuffix(REPLACED_SUFFIX).rpartition("-")[0]
        if name and not (parent / name).exists():
            aside.rename(parent / name)


def sweep_staging(parent: Path) -> None:
    """Remove the folders that killed processes left half-filled in ``parent``; one that is being filled stays.

    Whoever fills a folder holds a lock on it, which ends with the process. Where there are no locks, nothing goes.
    """
    for folder in parent.glob(f"{STAGING_PREFIX}*/"):
        with suppress(OSError):  # renamed or removed meanwhile, or of another account
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


@contextmanager
def file_errors_in_one_line() -> Iterator[None]:
    """An error of the system at a file that nothing in the block expected becomes an EtudeError that names the file."""
    try:
        yield
    except PermissionError as error:
        if error.filename is None:
            raise
        raise Unreadable(Path(os.fsdecode(error.filename)), error) from error
    except OSError as error:
        if error.filename is None:  # a pipe whose reader has gone, and the like
            raise
        raise EtudeError(
            f"{shown(str(error.filename))} cannot be used ({error.strerror}): see to the disk and its permissions, "
            "and try again"
        ) from error


def new_hash() -> Any:
    """The hash that is used for all files here, BLAKE2b-128, of nothing yet."""
    return hashlib.blake2b(digest_size=16)


def hash_file(path: Path) -> str:
    """BLAKE2b-128 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, new_hash).hexdigest()


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
    if sys.platform == "win32":
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if _take_lock(descriptor, wait=wait):
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


@contextmanager
def file_lock(path: Path, *, wait: bool, byte: int | None = None) -> Iterator[int | None]:
    """Hold a lock while the block runs; yields its descriptor, or None where another process holds it.

    The lock ends with the last process that has the descriptor, also when that is killed. Without locks (Windows) every
    caller gets it: two processes then do the same work, and the last one's files stand.

    Args:
        path: a file, made where it is missing; its content is left alone.
        wait: whether to wait for another process to release the lock.
        byte: the offset of one byte, to lock it alone; it then excludes other processes, not threads of this one.

    Raises:
        EtudeError: the file cannot be made.
    """
    # Not followed: a link in a folder from elsewhere would have another file locked.
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        raise write_failure(path, error) from error
    try:
        yield descriptor if _take_lock(descriptor, wait=wait, byte=byte) else None
    finally:
        os.close(descriptor)


def _take_lock(descriptor: int, *, wait: bool, byte: int | None = None) -> bool:
    """Lock an open file, or one byte of it; returns False where another process holds the lock."""
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    how = fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB)
    try:
        if byte is None:
            fcntl.flock(descriptor, how)
        else:
            fcntl.lockf(descriptor, how, 1, byte)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _umask() -> int:
    """The permissions that this user's new files do not get.

    It is one for the whole process, and os.umask can only read it by setting it: a file that another thread makes at
    that moment would get the wrong permissions.
    """
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("Umask:")).split()[1], 8)
    return _UMASK_AT_IMPORT


def _umask_by_setting() -> int:
    current = os.umask(0o077)
    os.umask(current)
    return current


# Where the system does not say, it is read before there are threads.
_UMASK_AT_IMPORT = 0o022 if Path("/proc/self/status").exists() else _umask_by_setting()


def _flush_tree(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            flush_file(path)
        elif path.is_dir():
            flush_folder(path)
    flush_folder(folder)


def flush_folder(folder: Path) -> None:
    """Have the names in ``folder`` on disk: without it a crash may undo a file's creation or renaming."""
    if os.name != "nt":  # Windows cannot open a folder; its rename is already durable enough
        flush_file(folder)


def flush_file(path: Path) -> None:
    """Have the content of ``path`` on disk."""
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
