"""Hash the weights of a model folder by their content, whatever files they are in. Needs no PyTorch."""

from __future__ import annotations

import hashlib
import itertools
import json
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from etude.errors import EtudeError, InputError
from etude.files import json_digest, write_atomic
from etude.places import cache_folder
from etude.run.weight_files import weight_files
from etude.untrusted import MAX_JSON_BYTES, open_plain, shown

_DAMAGE = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError),
    *(struct.error, RecursionError, OverflowError),
)
"""What reading a damaged file may raise."""
_BLOCK = 1 << 22
_SAMPLES, _SAMPLE_BYTES = 16, 4096
_HASH_LENGTH = 16
"""Characters of a hash."""


@dataclass(frozen=True)
class _Place:
    """Where a tensor is. about: its type and shape in words."""

    name: str
    file: Path
    start: int
    end: int
    about: str


def weights_hash(folder: Path) -> str:
    """Return the BLAKE2b-64 hash of all tensors of a model folder, in the order of their names.

    Raises:
        InputError: a weight file is missing or damaged, or there are only pickles.
    """
    digest = hashlib.blake2b(digest_size=_HASH_LENGTH // 2)
    for place in _places(folder):
        digest.update(json.dumps([place.name, place.about]).encode("ascii"))
        _digest(place, place.start, place.end, digest)
    return digest.hexdigest()


def sampled_hash(folder: Path) -> str:
    """Return a hash of the names, types and shapes of all tensors, and of a few bytes of some.

    Weights with different sampled hashes differ; those with the same may differ as well.

    Raises:
        InputError: a weight file is missing or damaged, or there are only pickles.
    """
    places = _places(folder)
    digest = hashlib.blake2b(json.dumps([[place.name, place.about] for place in places]).encode("ascii"))
    for place in places[:: max(1, len(places) // _SAMPLES)]:
        start = max(place.start, (place.start + place.end - _SAMPLE_BYTES) // 2)
        _digest(place, start, min(place.end, start + _SAMPLE_BYTES), digest)
    return digest.hexdigest()


def known_weights_hash(folder: Path) -> str:
    """Return :func:`weights_hash`, from Etude's cache if the files have not changed since it was computed.

    Raises:
        InputError: a weight file is missing or damaged, or there are only pickles.
    """
    stamps = []
    for file in weight_files(folder):
        status = file.stat()
        changed = status.st_mtime_ns, status.st_ctime_ns  # the second cannot be set
        stamps.append([str(file.resolve()), status.st_ino, status.st_size, *changed])
    known = None
    with suppress(EtudeError, OSError):
        known = cache_folder() / "weights" / json_digest({"files": stamps})
        value = known.read_text("ascii", "replace") if known.is_file() else ""
        if len(value) == _HASH_LENGTH and set(value) <= set("0123456789abcdef"):
            return value
    value = weights_hash(folder)
    with suppress(EtudeError, OSError):  # a cache that cannot be written costs only time
        if known is not None:
            known.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(known, value.encode("ascii"))
    return value


def _places(folder: Path) -> list[_Place]:
    """Return the tensors of a model folder in the order of their names."""
    places = {place.name: place for file in weight_files(folder) for place in _tensors(file)}
    return [places[name] for name in sorted(places)]


def _digest(place: _Place, start: int, end: int, digest: Any) -> None:
    with open_plain(place.file) as content:
        content.seek(start)
        _digest_next(content, end - start, digest, place.file)


def _digest_next(content: BinaryIO, left: int, digest: Any, file: Path) -> None:
    while left:
        block = content.read(min(left, _BLOCK))
        if not block:
            raise InputError(f"{file} is damaged (it ends too early): restore it")
        digest.update(block)
        left -= len(block)


def _tensors(file: Path) -> list[_Place]:
    """Return where each tensor of a safetensors file begins and ends."""
    try:
        with open_plain(file) as content:
            (length,) = struct.unpack("<Q", content.read(8))
            if length > MAX_JSON_BYTES:
                raise ValueError("its header is too long")
            header = json.loads(content.read(length))
        size, tensors = file.stat().st_size, []
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            start, end = (8 + length + int(place) for place in entry["data_offsets"])
            if not 8 + length <= start <= end <= size:
                raise ValueError("a tensor is outside the file")
            tensors.append(_Place(str(name), file, start, end, f"{entry['dtype']} {list(entry['shape'])}"))
        ends = sorted((place.start, place.end) for place in tensors)
        if any(start < end for (_, end), (start, _) in itertools.pairwise(ends)):
            raise ValueError("two tensors overlap")
    except _DAMAGE as error:
        raise InputError(f"{file} is damaged ({shown(str(error))}): restore it") from None
    return tensors
