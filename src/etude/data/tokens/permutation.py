"""A random order of 0 .. n-1 that needs no memory: each element's position is computed directly.

A Feistel network permutes the smallest power-of-four domain that holds n numbers; values outside [0, n) are sent
through again until they fall inside (cycle walking; Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002).
It takes fewer than four passes on average.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

_ROUNDS = 8
_UInt64 = npt.NDArray[np.uint64]


class Permutation:
    """A bijection of [0, size) chosen by ``key``."""

    def __init__(self, size: int, *key: int) -> None:
        if size < 1:
            raise ValueError("a permutation needs at least one element")
        self.size = size
        self._half = np.uint64(max(1, ((size - 1).bit_length() + 1) // 2))
        self._mask = np.uint64((1 << int(self._half)) - 1)
        material = hashlib.blake2b(
            repr(tuple(int(part) for part in key)).encode(), digest_size=8 * _ROUNDS
        ).digest()
        self._keys = np.frombuffer(material, np.uint64)

    def __call__(self, index: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the images of ``index`` (any shape, values in [0, size))."""
        value = self._rounds(index.astype(np.uint64))
        outside = value >= self.size
        while outside.any():
            value[outside] = self._rounds(value[outside])
            outside = value >= self.size
        return value.astype(np.int64)

    def _rounds(self, value: _UInt64) -> _UInt64:
        left, right = value >> self._half, value & self._mask
        for key in self._keys:
            left, right = right, left ^ (_mixed(right + key) & self._mask)
        return (left << self._half) | right


def _mixed(value: _UInt64) -> _UInt64:
    """Apply the finaliser of SplitMix64 (Steele, Lea and Flood, 2014): every bit depends on every bit."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
