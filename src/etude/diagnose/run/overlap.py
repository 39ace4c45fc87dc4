"""How much of the held-out text occurs word for word in training.

A split by hash keeps equal lines of 64 characters on one side (:mod:`etude.data.corpus.leakage`); a split by position
keeps nothing apart. Text in short lines, or with other line breaks, escapes both. This module compares runs of bytes
across lines: every run of :data:`RUN_BYTES` in the training text is looked up among those of the held-out text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

UInt64 = npt.NDArray[np.uint64]
RUN_BYTES = 200
"""About 50 tokens: the length of a repeated run in Lee et al. 2022, "Deduplicating Training Data Makes Language Models
Better", section 4.1."""
COPY_BYTES = 1_000
"""A shared stretch of so many bytes, or of half of its document, is a copy; a shorter one may be a phrase that the text
repeats. (2.2 % of Etude's own stories are in shared runs, the longest of 329 bytes.)"""
HELD_OUT_BYTES = 1_000_000
TRAINING_BYTES = 256_000_000
"""Bytes compared at most, from the beginning of each part."""
_CHUNK = 1 << 20
_BASE = np.uint64(0x9E3779B97F4A7C15)
_INVERSE = np.uint64(pow(0x9E3779B97F4A7C15, -1, 1 << 64))
_FILTER_BITS = 24
_BYTE_VALUES = np.random.default_rng(0).integers(1, 1 << 63, 256, np.uint64)
"""The value of each byte: a polynomial modulo 2^64 in the bytes themselves would be weak in its low bits."""


@dataclass(frozen=True)
class Overlap:
    """What was compared, and what both parts share."""

    held_out_bytes: int
    training_bytes: int
    shared_bytes: int  # of the held-out text, in runs of RUN_BYTES or more that occur in training
    copied_bytes: int  # of these, in stretches that are copies rather than repeated phrases
    longest: int  # bytes of the longest stretch
    example: str  # how it begins

    @property
    def shared(self) -> float:
        """Share of the held-out text."""
        return self.shared_bytes / self.held_out_bytes

    @property
    def copied(self) -> float:
        """Share of the held-out text."""
        return self.copied_bytes / self.held_out_bytes


def overlap(held_out: Iterable[bytes], training: Iterable[bytes]) -> Overlap | None:
    """Compare two parts, given as documents; None if the held-out text is shorter than a run."""
    text = b"".join(document + b"\0" for document in held_out)
    if len(text) <= RUN_BYTES:
        return None
    keys = _run_keys(np.frombuffer(text, np.uint8))
    held_out_keys = np.unique(keys)
    possible = np.zeros(1 << _FILTER_BITS, bool)
    possible[_filter_places(held_out_keys)] = True
    in_training = np.zeros(len(held_out_keys), bool)
    compared: list[int] = []
    for chunk in _chunks(_counted(training, compared)):
        chunk_keys = _run_keys(chunk)
        chunk_keys = chunk_keys[possible[_filter_places(chunk_keys)]]
        places = np.searchsorted(held_out_keys, chunk_keys).clip(max=len(held_out_keys) - 1)
        in_training[places[held_out_keys[places] == chunk_keys]] = True
    begins = in_training[np.searchsorted(held_out_keys, keys)]
    return _described(text, begins, sum(compared))


def _counted(documents: Iterable[bytes], sizes: list[int]) -> Iterator[bytes]:
    """Yield the documents, and append the size of each to ``sizes``."""
    for document in documents:
        sizes.append(len(document))
        yield document


def _described(text: bytes, begins: npt.NDArray[np.bool_], compared: int) -> Overlap:
    """Return the overlap; ``begins`` marks the bytes of ``text`` at which a shared run starts."""
    covers = np.zeros(len(text) + 1, np.int64)
    at = np.flatnonzero(begins)
    covers[at] += 1
    covers[at + RUN_BYTES] -= 1
    ends = np.flatnonzero(np.frombuffer(text, np.uint8) == 0)  # of the documents
    covered = np.concatenate([[False], np.cumsum(covers)[:-1] > 0, [False]])
    covered[ends + 1] = False
    firsts, lasts = np.flatnonzero(covered[1:] != covered[:-1]).reshape(-1, 2).T
    lengths = lasts - firsts
    documents = np.diff(ends, prepend=-1) - 1
    copies = (lengths >= COPY_BYTES) | (2 * lengths >= documents[np.searchsorted(ends, firsts)])
    example, longest = "", 0
    if len(lengths):
        which = int(lengths.argmax())
        longest = int(lengths[which])
        example = " ".join(text[firsts[which] : lasts[which]].decode("utf-8", "ignore").split())[:60]
    copied = int(lengths[copies].sum())
    return Overlap(len(text) - len(ends), compared, int(lengths.sum()), copied, longest, example)


def _chunks(documents: Iterable[bytes]) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the documents as bytes separated by zeros, in chunks that overlap by a run minus one byte."""
    buffer = bytearray()
    for document in documents:
        buffer += document + b"\0"
        while len(buffer) >= _CHUNK:
            yield np.frombuffer(bytes(buffer[:_CHUNK]), np.uint8)
            del buffer[: _CHUNK - RUN_BYTES + 1]
    if len(buffer) > RUN_BYTES:
        yield np.frombuffer(bytes(buffer), np.uint8)


def _run_keys(data: npt.NDArray[np.uint8]) -> UInt64:
    """Return (len(data) - RUN_BYTES + 1,) a hash of each run, independent of its position.

    The run from i has the key sum_j v[data[i + j]] B^j modulo 2^64: a difference of prefix sums, divided by B^i.
    """
    powers = np.full(len(data), _BASE)
    powers[0] = 1
    np.cumprod(powers, out=powers)
    sums = np.zeros(len(data) + 1, np.uint64)
    np.cumsum(_BYTE_VALUES[data] * powers, out=sums[1:])
    inverses = np.full(len(data) - RUN_BYTES + 1, _INVERSE)
    inverses[0] = 1
    np.cumprod(inverses, out=inverses)
    return (sums[RUN_BYTES:] - sums[:-RUN_BYTES]) * inverses


def _filter_places(keys: UInt64) -> npt.NDArray[np.int64]:
    return (keys >> np.uint64(64 - _FILTER_BITS)).astype(np.int64)
