"""Print the address without exposing its token, which controls the runs, to other accounts."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import TextIO
from urllib.parse import urlsplit

from etude.places import cache_folder


def keep_address(address: str) -> None:
    """Write the address into :func:`address_file` if possible."""
    with suppress(OSError, RuntimeError):  # an account may have no home folder
        file = address_file(address)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(
            missing_ok=True
        )  # do not write into an existing file: it may be a link, or readable by others
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as written:
            written.write(address + "\n")


def forget_address(address: str) -> None:
    """Remove that file if it holds this address."""
    with suppress(OSError, RuntimeError):
        file = address_file(address)
        if file.read_text() == address + "\n":
            file.unlink()


def printed_address(address: str, stream: TextIO | None = None) -> str:
    """Return the address; if other accounts can read what is printed to ``stream``, the file that holds it instead."""
    if not address or not _others_can_read(sys.stdout if stream is None else stream):
        return address
    return (
        f"{address.partition('?')[0]} (the address with its token is in {address_file(address)}, since other accounts "
        "can read this file)"
    )


def address_file(address: str) -> Path:
    """Return the file that holds the address of a running server; only its owner can read it."""
    owner = os.getuid() if hasattr(os, "getuid") else "me"
    return cache_folder() / f"studio-{owner}-{urlsplit(address).port}"


def _others_can_read(stream: TextIO) -> bool:
    """Return whether ``stream`` is a file, such as the log of a job, that other accounts may open."""
    try:
        mode = os.fstat(stream.fileno()).st_mode
    except (OSError, ValueError, AttributeError):
        return False
    return stat.S_ISREG(mode) and bool(mode & 0o044)
