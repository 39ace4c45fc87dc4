"""What may come from a stranger is data: plain files of a sensible size, names inside a folder, words on one line."""

from __future__ import annotations

import codecs
import os
import stat
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from etude.errors import InputError
from etude.messages import quoted

MAX_SETTINGS_BYTES = 1 << 22
MAX_JSON_BYTES = 1 << 26
MAX_LINE_BYTES = 1 << 20
"""A longer line of a log is none of ours."""
LONGEST_NAME = 255
"""Bytes that the usual file systems allow a name."""
LONGEST_NEW_NAME = 200
"""Bytes of a name that is chosen here: what is appended while the folder is filled, and a number, fit behind it."""
MAX_SHOWN = 120
"""Characters of a stranger's words in an error."""


_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def marked_encoding(head: bytes) -> str | None:
    """Return the codec that the byte order mark at the beginning of a file names, or None where there is no mark."""
    return next((codec for mark, codec in _MARKS if head.startswith(mark)), None)


class Unreadable(InputError):
    """A file that may well be whole, and that this account may not read."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(f"{path} cannot be read ({error.strerror}): {_way_in(path)}")


def _way_in(path: Path) -> str:
    """What to type for access to ``path``: about its nearest folder that can be looked at, if not the file itself."""
    for place in (path, *path.parents):
        try:
            found = place.stat()
        except OSError:
            continue
        everything = "-R " if stat.S_ISDIR(found.st_mode) else ""
        name = quoted(place)
        if not hasattr(os, "getuid") or found.st_uid == os.getuid():
            return f"type  chmod {everything}u+rwX {name}"
        return f"it belongs to another account; type  sudo chown {everything}{os.getuid()} {name}"
    return "make it readable for this account"


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Around what opens or looks at ``path``: a missing permission is one line that says what to type.

    Raises:
        Unreadable: this account may not read it.
    """
    try:
        yield
    except PermissionError as error:
        raise Unreadable(path, error) from None


def read_plain(path: Path, most: int) -> bytes:
    """The bytes of a plain file.

    Raises:
        OSError: missing or damaged.
        InputError: not a plain file (a pipe or a device may never end), or longer than ``most``.
        Unreadable: this account may not read it.
    """
    with readable(path), open_plain(path) as file:
        content = file.read(most + 1) if os.fstat(file.fileno()).st_size <= most else b""
        if len(content) > most or os.fstat(file.fileno()).st_size > most:
            raise InputError(f"{path} is damaged (longer than {most:,} bytes): restore it")
    return content


def open_plain(path: Path) -> BinaryIO:
    """A plain file, open for reading. Nothing else is ever waited for: to open a pipe takes until it has a writer.

    Raises:
        OSError: missing or unreadable.
        InputError: not a plain file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError:  # a NUL in the name
        raise InputError(f"{shown(str(path))} is not a name that a file can have: name another") from None
    except IsADirectoryError:
        raise InputError(f"{path} is damaged (not a plain file): restore it") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError(f"{path} is damaged (not a plain file): restore it")
    return os.fdopen(descriptor, "rb")


def require_utf8(path: Path) -> None:
    """InputError for a name that is not UTF-8: the library that reads weights cannot open it."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(
            f"'{shown(str(path))}' has bytes that are not UTF-8, so its weights cannot be read: rename the folder"
        ) from None


def inside(folder: Path, name: Any) -> Path:
    """The file of ``folder`` that a stranger's file names; InputError for a name that is not of a file in it."""
    if not isinstance(name, str) or not _is_plain_name(name):
        raise InputError(f"{folder} is damaged (it names the file {shown(name)}): restore it")
    return folder / name


def _is_plain_name(name: str) -> bool:
    fits = len(name.encode("utf-8", "surrogatepass")) <= LONGEST_NAME
    return fits and name == Path(name).name and name.isprintable() and name not in {"", ".", ".."}


def require_run_name(name: str) -> None:
    """InputError for a name that a new run may not have, wherever it is asked for.

    It is to be a folder's name on any system, not to be taken for an option or for a hidden file, and to show as what
    it is on one line of a terminal.
    """
    fits = len(name.encode("utf-8", "surrogatepass")) <= LONGEST_NEW_NAME
    plain = name.isprintable() and name == name.strip() and not set(name) & set('/\\<>:"|?*')
    if not (name and fits and plain and name[0] not in "-.~" and name[-1] != "."):
        raise InputError(
            f"'{shown(name)}' cannot name a run: use letters, digits, '-' and '_', such as my-run, beginning with a "
            "letter or a digit"
        )


def refuse_links_out(folder: Path) -> None:
    """InputError for a link below ``folder`` that leads out of it: what is written there would land elsewhere.

    The folder itself may be a link: that is its owner's choice.
    """
    real = os.path.realpath(folder)
    waiting = [str(folder)]
    while waiting:
        with suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_symlink():
                    target = os.path.realpath(entry.path)
                    if os.path.commonpath([real, target]) != real:
                        raise InputError(
                            f"{entry.path} is a link that leads out of the run: put the file itself there"
                        )
                elif entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)


def shown(value: Any) -> str:
    """A stranger's value (text as it is, all else as Python writes it) on one line of at most ``MAX_SHOWN``."""
    try:
        text = value if isinstance(value, str) else repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, a list of lists of lists
        text = f"a {type(value).__name__} too large to show"
    text = text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."
    return "".join("�" if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") else c for c in text)
