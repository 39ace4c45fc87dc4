"""Atomic writes, staged folders, locks, JSON and checksums.

A file or folder is written under a temporary name in the same folder, flushed to disk and renamed. A crash at any byte
leaves the previous state in place.
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
"""Key of a sealed JSON object: the digest of all its other keys."""
FIRST_SCHEMA, SEALED_SCHEMA = 1, 2
"""Schema of JSON objects of the first edition, and of those with a digest."""


def write_atomic(path: Path, content: bytes | str) -> None:
    """Replace the file at ``path`` with ``content``. A reader sees the old file or the new one, each complete.

    Raises:
        EtudeError: the disk is full or not writable; the old file is unchanged.
    """
    # JSON can escape a lone surrogate, which UTF-8 cannot encode: it becomes "?".
    payload = content.encode("utf-8", "replace") if isinstance(content, str) else content
    temporary: str | None = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=STAGING_PREFIX, dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes the file private
        os.replace(temporary, path)
        flush_folder(path.parent)
    except OSError as error:
        if temporary is not None:
            with suppress(OSError):
                os.unlink(temporary)
        raise write_failure(path, error) from error


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON with :func:`write_atomic`."""
    write_atomic(path, json_text(value))


def json_safe(value: Any) -> Any:
    """Return ``value`` with None in place of NaN and infinities, which JSON lacks, and lists in place of tuples."""
    if isinstance(value, dict):
        return {key: json_safe(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [json_safe(member) for member in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def json_text(value: Any) -> str:
    """Return a value as indented JSON, the text that :func:`write_json` writes."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def read_json(path: Path) -> Any:
    """Return the JSON value in the file ``path``.

    Raises:
        InputError: the file is missing, unreadable or damaged.
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
    """Return the JSON object in the file ``path``.

    Raises:
        InputError: the file is missing, unreadable or damaged, or holds another value than an object.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise InputError(f"{path} is damaged (not a JSON object): restore it or use another run")
    return value


def write_sealed(path: Path, value: dict[str, Any]) -> None:
    """Write an object as JSON with the digest of its content, which :func:`read_sealed` checks."""
    write_json(path, {**value, DIGEST: json_digest(value)})


def read_sealed(path: Path, newest: int = SEALED_SCHEMA) -> dict[str, Any]:
    """Return the object that :func:`write_sealed` wrote to the file ``path``, after checking its digest.

    Objects of the first edition have no digest, and are returned unchecked.

    Raises:
        InputError: the file is missing, damaged or edited, or has a later schema than ``newest``.
    """
    value = read_object(path)
    schema = value.get("schema", FIRST_SCHEMA)
    # The type is compared too: True equals 1.
    if type(schema) is not int or not FIRST_SCHEMA <= schema <= newest:
        raise InputError(f"{path} has schema {shown(schema)}; this etude reads up to {newest}: update it")
    # An object of the first edition has no digest; one with a digest had its schema lowered to avoid the check.
    sealed = schema != FIRST_SCHEMA or DIGEST in value
    if sealed and value.get(DIGEST) != json_digest(value):
        raise InputError(
            f"{path} is damaged or was edited (its digest does not match its content): restore it"
        )
    return value


def json_digest(value: dict[str, Any]) -> str:
    """Return the BLAKE2b-128 of an object without its digest. Spacing and the order of keys do not matter."""
    content = {key: entry for key, entry in value.items() if key != DIGEST}
    return hash_bytes(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())


@contextmanager
def staged_folder(final: Path, *, replace: bool = True) -> Iterator[Path]:
    """Yield a temporary folder to fill, which is renamed to ``final`` if the block ends without an error.

    Raises:
        InputError: without ``replace``, another process has taken the name meanwhile.
        EtudeError: the disk is full or not writable. The temporary folder is removed, and ``final`` is unchanged.
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
    """Rename ``staging`` to ``final``. Return the new path of the folder that had this name, or None."""
    if not final.exists():
        os.replace(staging, final)
        return None
    # Rename the old folder instead of removing it: after a crash between the two renames it is still complete, and
    # `recover_replaced` restores its name.
    replaced = staging.with_name(f"{staging.name}{REPLACED_SUFFIX}")
    os.replace(final, replaced)
    try:
        os.replace(staging, final)
    except BaseException:
        os.replace(replaced, final)
        raise
    return replaced


def _make_folders(folder: Path) -> None:
    """Create ``folder`` and its missing parents, and flush each: otherwise a crash may undo a parent."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        flush_folder(path.parent)


def recover_replaced(parent: Path) -> None:
    """Restore the names of folders whose replacement was interrupted between its two renames (:func:`_exchange`)."""
    for replaced in parent.glob(f"{STAGING_PREFIX}*{REPLACED_SUFFIX}"):
        name = replaced.name.removeprefix(STAGING_PREFIX).removesuffix(REPLACED_SUFFIX).rpartition("-")[0]
        if name and not (parent / name).exists():
            replaced.rename(parent / name)


def sweep_staging(parent: Path) -> None:
    """Remove the temporary folders of killed processes in ``parent``. One that is being filled stays.

    The process that fills a folder holds a lock on it, which ends with the process. Without locks (Windows) nothing is
    removed.
    """
    for folder in parent.glob(f"{STAGING_PREFIX}*/"):
        with suppress(OSError):  # it was renamed or removed meanwhile, or belongs to another account
            lock = _lock(folder, wait=False)
            if lock is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)


def write_failure(path: Path, error: OSError) -> EtudeError:
    """Return the error for a write to ``path`` that the system refused, with its cause and what to do."""
    cause = error.strerror or error
    full = error.errno in (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))
    advice = "free some space or choose another folder" if full else "choose a folder that can be written"
    return EtudeError(f"could not write {path}: {cause}; {advice}")


@contextmanager
def file_errors_in_one_line() -> Iterator[None]:
    """Convert an OSError within the block, if it names a file, into an EtudeError with a message for the user."""
    try:
        yield
    except PermissionError as error:
        if error.filename is None:
            raise
        raise Unreadable(Path(os.fsdecode(error.filename)), error) from error
    except OSError as error:
        if error.filename is None:  # not about a file: a closed pipe, for example
            raise
        raise EtudeError(
            f"{shown(str(error.filename))} cannot be used ({error.strerror}): check the disk and its permissions, "
            "and try again"
        ) from error


def new_hash() -> Any:
    """Return a new BLAKE2b-128 hash object, the hash of all files of Etude."""
    return hashlib.blake2b(digest_size=16)


def hash_file(path: Path) -> str:
    """Return the BLAKE2b-128 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, new_hash).hexdigest()


def hash_bytes(content: bytes) -> str:
    """Return the hash that :func:`hash_file` returns for a file with this content."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _new_staging(final: Path) -> tuple[Path, int | None]:
    """Create a temporary folder beside ``final``. Return it with the descriptor of its lock (None without locks)."""
    while True:
        staging = Path(tempfile.mkdtemp(prefix=f"{STAGING_PREFIX}{final.name}-", dir=final.parent))
        with suppress(FileNotFoundError):
            lock = _lock(staging, wait=True)
            if staging.is_dir():
                return staging, lock
            if lock is not None:  # `sweep_staging` removed the folder before it was locked: try again
                os.close(lock)


def _lock(folder: Path, *, wait: bool) -> int | None:
    """Lock ``folder`` until the returned descriptor is closed; None if it is locked, or cannot be locked."""
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
    """Hold a lock within the block. Yield its descriptor, or None if another process holds the lock.

    The lock ends with the last process that has the descriptor, even if it is killed. Without locks (Windows) every
    caller gets the lock: two processes then do the same work, and the later files replace the earlier ones.

    Args:
        path: the file to lock, created if it is missing; its content is unchanged.
        wait: whether to wait until another process releases the lock.
        byte: the offset of a single byte to lock; such a lock excludes other processes, but not threads of this one.

    Raises:
        EtudeError: the file cannot be created.
    """
    # Do not follow links: a link in an untrusted folder may name any file.
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
    """Lock an open file, or one byte of it. Return False if another process holds the lock."""
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    operation = fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB)
    try:
        if byte is None:
            fcntl.flock(descriptor, operation)
        else:
            fcntl.lockf(descriptor, operation, 1, byte)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _umask() -> int:
    """Return the umask of this process: the permissions that its new files do not get.

    os.umask can read it only by setting it, for all threads. A file that another thread creates at that moment would
    get the wrong permissions. So it is read from /proc if possible, and else once at import.
    """
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("Umask:")).split()[1], 8)
    return _UMASK_AT_IMPORT


def _umask_by_setting() -> int:
    current = os.umask(0o077)
    os.umask(current)
    return current


# Without /proc, read it at import: no threads exist yet.
_UMASK_AT_IMPORT = 0o022 if Path("/proc/self/status").exists() else _umask_by_setting()


def _flush_tree(folder: Path) -> None:
    """Flush all files and folders below ``folder`` to disk."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            flush_file(path)
        elif path.is_dir():
            flush_folder(path)
    flush_folder(folder)


def flush_folder(folder: Path) -> None:
    """Flush the entries of ``folder`` to disk: otherwise a crash may undo the creation or renaming of a file."""
    if os.name != "nt":  # Windows cannot open a folder; its renames are durable enough
        flush_file(folder)


def flush_file(path: Path) -> None:
    """Flush the content of the file ``path`` to disk."""
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
