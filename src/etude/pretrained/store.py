"""The store of base models: one read-only copy of each of their files, in Etude's cache, by the hash of its content.

The first checkpoint of every run on a model links its weights from the store, so they take disk space once, and stay
when the cache is emptied. Its small files are copies: an edit of one must not change the others.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from etude.config import NO_BASE
from etude.data.files import locked
from etude.errors import EtudeError, InputError
from etude.files import hash_file, new_hash, staged_folder, sweep_staging
from etude.places import cache_folder
from etude.pretrained.base import Base
from etude.pretrained.own_files import file_of_model
from etude.pretrained.resolve_source import model_folder
from etude.pretrained.source_names import HUB
from etude.run.checkpoints import CARD, list_checkpoints, read_marker
from etude.run.folder import RunFolder
from etude.run.weight_files import BASE_FOLDER
from etude.untrusted import inside, open_plain, shown

CONTENT = "content"
"""Name of a stored file, in the folder that has its hash as name."""
_CHUNK = 1 << 22
_LOCK = "store"
"""One lock for all files: two bases may share one."""


def put_files(base: Base, folder: Path) -> None:
    """Put the files of ``base`` into ``folder``: links to weights in the store, and copies of small files.

    Weights on another disk than the store are copied without it, since they cannot be links.

    Raises:
        InputError: one of them has changed since the base was opened.
        EtudeError: the disk is full or cannot be written.
    """
    with locked(store(), _LOCK):
        for name, value in base.files.items():
            source, target = base.path(name), folder / name
            if name not in base.weights:
                copy_file(_stored(source, value), target, value)
            elif links_to_store(folder):
                _link(_stored(source, value), target)
            else:
                copy_file(source, target, value)


def copy_files(base: Base, folder: Path) -> None:
    """Copy the files of ``base`` into ``folder``.

    Raises:
        InputError: one of them has changed since the base was opened.
    """
    for name, value in base.files.items():
        copy_file(base.path(name), folder / name, value)


def new_bytes(base: Base, folder: Path) -> int:
    """Return the bytes that :func:`put_files` will newly take on the disk of ``folder``."""
    linked = links_to_store(folder)
    sizes = {name: base.path(name).stat().st_size for name in base.files}
    return sum(
        size
        for name, size in sizes.items()
        if not (linked and name in base.weights and _is_in_cache(base, name))
    )


def links_to_store(folder: Path) -> bool:
    """Return whether ``folder``, which need not exist, is on the disk of the store: other disks cannot link to it."""
    devices = [_existing(place).stat().st_dev for place in (folder, cache_folder())]
    return devices[0] == devices[1]


def restore_first_checkpoint(
    run: RunFolder, manifest: Mapping[str, Any], source: str, report: Callable[[str], object]
) -> None:
    """Restore damaged and missing files of the first checkpoint of a run that begins with a base model.

    In a fork with an adapter these are the files of its base, beside the checkpoints.

    Good copies are those of the store, and of the model itself where ``source``, a local one, still names it. The
    damaged files are set aside. Requires the lock of the run.

    Raises:
        EtudeError: a file cannot be written.
    """
    folders = list_checkpoints(run.checkpoints)
    entry = manifest.get("base")
    if not folders or not isinstance(entry, dict):
        return
    base = run.checkpoints / BASE_FOLDER
    first = base if base.is_dir() else folders[0]
    try:
        checksums = read_marker(first).checksums
    except InputError:  # reported where the checkpoint is used
        return
    files = entry.get("files")
    for name, expected in checksums.items():
        file = inside(first, name)
        of_base = isinstance(files, dict) and files.get(name) == expected
        if name == CARD or not of_base or _hash(file) == expected:
            continue
        problem = f"{file} is {'damaged or was edited' if os.path.lexists(file) else 'missing'}"
        good = _good_copy(name, expected, source)
        if good is None:
            report(
                f"{problem}, and neither the cache nor {shown(source)} has a good copy: put it back, or the first "
                "steps of this run cannot be replayed"
            )
            continue
        kept = f"; the previous file is kept as {run.set_aside(file)}" if os.path.lexists(file) else ""
        with locked(store(), _LOCK):
            stored = _stored(good, expected)
            if name.endswith(".safetensors") and links_to_store(first):
                _link(stored, file)
            else:
                copy_file(stored, file, expected)
        report(f"{problem}: it was restored from {good}{kept}")


def store() -> Path:
    """Return the folder of the store."""
    return cache_folder() / "models" / "files"


def copy_file(source: Path, target: Path, expected: str) -> None:
    """Copy a file, and hash it meanwhile.

    Raises:
        InputError: it has another hash than ``expected``.
    """
    digest = new_hash()
    with open_plain(source) as reader, target.open("wb") as writer:
        while chunk := reader.read(_CHUNK):
            digest.update(chunk)
            writer.write(chunk)
    if digest.hexdigest() != expected:
        raise InputError(f"{source} was changed while it was read: try again")


def _file(value: str) -> Path:
    """Return the path of the stored file with this hash."""
    return store() / value / CONTENT


def _stored(source: Path, value: str) -> Path:
    """Return the stored file with the hash ``value``; made from ``source`` if it is missing or damaged."""
    file = _file(value)
    if _holds(file, source, value):
        return file
    sweep_staging(store())
    with staged_folder(file.parent) as staging:
        new = staging / CONTENT
        if _made_by_etude(source):  # of a GGUF file: it is in the cache already
            _link(source, new)
        if not _holds(new, source, value):
            new.unlink(missing_ok=True)
            copy_file(source, new, value)
        if os.name != "nt":  # Windows can neither flush nor remove such a file
            new.chmod(0o444)
    return file


def _holds(file: Path, source: Path, value: str) -> bool:
    """Return whether a file has the hash ``value``, which ``source`` has: where both are one file it is not read."""
    with suppress(OSError):
        if os.path.samefile(file, source):
            return True
    return _hash(file) == value


def _made_by_etude(source: Path) -> bool:
    return source.parent.parent == cache_folder() / "models" and not source.is_symlink()


def _link(file: Path, target: Path) -> None:
    """Link a file, or copy it where the file system has no links."""
    try:
        os.link(file, target)
    except OSError:
        shutil.copyfile(file, target)


def _good_copy(name: str, expected: str, source: str) -> Path | None:
    """Return an intact file of a base, in the store or in the model that ``source`` names; None if there is none."""
    stored = _file(expected)
    if _hash(stored) == expected:
        return stored
    if source == NO_BASE or source.startswith(HUB):  # nothing is downloaded without being requested
        return None
    with suppress(EtudeError, OSError):
        file = file_of_model(model_folder(source), name)
        return file if _hash(file) == expected else None
    return None


def _hash(file: Path) -> str | None:
    """Return the hash of a file; None if it is missing or cannot be read."""
    try:
        return hash_file(file) if file.is_file() else None
    except OSError:
        return None


def _is_in_cache(base: Base, name: str) -> bool:
    return _file(base.files[name]).is_file() or _made_by_etude(base.path(name))


def _existing(place: Path) -> Path:
    return next(path for path in (place, *place.absolute().parents) if path.is_dir())
