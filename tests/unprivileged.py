"""Tests often run as root, for whom every file is readable: do something without that privilege."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_VERSION = 0x20080522  # of <linux/capability.h>: two words of 32 bits each
_DAC_OVERRIDE, _DAC_READ_SEARCH = 1, 2


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable"))


@contextmanager
def as_ordinary_user() -> Iterator[None]:
    """The permissions of files hold for this thread while the block lasts, also for root (Linux)."""
    if not hasattr(os, "geteuid"):
        pytest.skip("this system has no permissions of files")
    if os.geteuid() != 0:
        yield
        return
    if not Path("/proc/self/status").exists():
        pytest.skip("root can give up this privilege on Linux only")
    libc = ctypes.CDLL(None, use_errno=True)
    header, before, without = _Header(_VERSION, 0), (_Data * 2)(), (_Data * 2)()
    for data in (before, without):
        assert libc.capget(ctypes.byref(header), data) == 0
    without[0].effective &= ~(1 << _DAC_OVERRIDE | 1 << _DAC_READ_SEARCH)
    assert libc.capset(ctypes.byref(header), without) == 0
    try:
        yield
    finally:
        assert libc.capset(ctypes.byref(header), before) == 0
