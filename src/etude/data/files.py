"""Folders of the cache: list and verify their files, and let one process write at a time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from etude.files import STAGING_PREFIX, file_lock, hash_file, write_failure


def key_of(value: Any) -> str:
    """Return BLAKE2b-128 of a plain value, in hexadecimal: equal values have equal keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def describe_files(folder: Path, known: Mapping[str, str] | None = None) -> dict[str, dict[str, Any]]:
    """Return size and hash of every file in ``folder``, by relative path; ``known`` hashes are not recomputed."""
    known = known or {}
    described = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not path.name.startswith(STAGING_PREFIX):
            described[name] = {"bytes": path.stat().st_size, "hash": known.get(name) or hash_file(path)}
    return described


def damaged_file(folder: Path, described: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Return the first file whose size or hash differs from its record; None when all agree."""
    for name, facts in described.items():
        path = folder / name
        try:
            if ".." in path.parts[len(folder.parts) :] or Path(name).is_absolute() or not path.is_file():
                return name
            if path.stat().st_size != facts["bytes"] or hash_file(path) != facts["hash"]:
                return name
        except OSError:
            return name
    return None


@contextmanager
def locked(folder: Path, key: str) -> Iterator[None]:
    """Let one process at a time prepare what ``key`` names in ``folder``; the others wait, then find it done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_failure(folder, error) from error
    with file_lock(folder / f"{key}.lock", wait=True):
        yield
