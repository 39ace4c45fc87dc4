"""Checks of untrusted input: files are regular and of limited size, names stay in a folder, texts fit on one line.

A run folder may come from a stranger. Opening it must neither run code, nor block, nor reach files elsewhere.
"""

from __future__ import annotations

import codecs
import os
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from etude.errors import InputError
from etude.messages import quoted

MAX_SETTINGS_BYTES = 1 << 22
MAX_JSON_BYTES = 1 << 26
MAX_LINE_BYTES = 1 << 20
"""Etude writes no longer line to a log; readers skip longer ones."""
LONGEST_NAME = 255
"""Most bytes of a file name on common file systems."""
LONGEST_NEW_NAME = 200
"""Most bytes of a new run's name: leaves room for a number, and for the affixes of the folder while it is written."""
MAX_SHOWN = 120
"""Most characters of an untrusted text in a message."""


_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16: its mark begins with that of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def marked_encoding(head: bytes) -> str | None:
    """Return the codec for the byte order mark with which ``head`` starts; None without a mark."""
    return next((codec for mark, codec in _MARKS if head.startswith(mark)), None)


class Unreadable(InputError):
    """This account lacks the permission to read a file, which may well be intact."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(f"{path} cannot be read ({error.strerror}): {_permission_advice(path)}")


def _permission_advice(path: Path) -> str:
    """Return the command that gives access to ``path``, or to its nearest folder that this account can examine."""
    for candidate in (path, *path.parents):
        try:
            status = candidate.stat()
        except OSError:
            continue
        recursive = "-R " if stat.S_ISDIR(status.st_mode) else ""
        name = quoted(candidate)
        if not hasattr(os, "getuid") or status.st_uid == os.getuid():
            return f"type  chmod {recursive}u+rwX {name}"
        return f"it belongs to another account; type  sudo chown {recursive}{os.getuid()} {name}"
    return "make it readable for this account"


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Convert a PermissionError within the block, which opens or examines ``path``, into :class:`Unreadable`.

    Raises:
        Unreadable: this account may not read ``path``.
    """
    try:
        yield
    except PermissionError as error:
        raise Unreadable(path, error) from None


def read_plain(path: Path, max_bytes: int) -> bytes:
    """Return the content of a regular file.

    Raises:
        OSError: the file is missing, or the disk cannot read it.
        InputError: it is not a regular file (a pipe or a device may never end), or is longer than ``max_bytes``.
        Unreadable: this account may not read it.
    """
    with readable(path), open_plain(path) as file:
        content = file.read(max_bytes + 1) if os.fstat(file.fileno()).st_size <= max_bytes else b""
        # Checked again: the file may have grown meanwhile.
        if len(content) > max_bytes or os.fstat(file.fileno()).st_size > max_bytes:
            raise InputError(f"{path} is damaged (longer than {max_bytes:,} bytes): restore it")
    return content


def open_plain(path: Path) -> BinaryIO:
    """Open a regular file for reading.

    Raises:
        OSError: the file is missing or unreadable.
        InputError: it is not a regular file.
    """
    try:
        # Without O_NONBLOCK, opening a pipe blocks until it has a writer.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError:  # a NUL in the name
        raise InputError(f"{shown(str(path))} is not a valid file name: use another") from None
    except IsADirectoryError:
        raise InputError(f"{path} is damaged (not a plain file): restore it") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError(f"{path} is damaged (not a plain file): restore it")
    return os.fdopen(descriptor, "rb")


def require_utf8(path: Path) -> None:
    """Raise InputError for a path that is not UTF-8: the safetensors library cannot open it."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(
            f"'{shown(str(path))}' has bytes that are not UTF-8, so its weights cannot be read: rename the folder"
        ) from None


def inside(folder: Path, name: Any) -> Path:
    """Return the path of the file ``name`` in ``folder``. The ``name`` comes from an untrusted file.

    Raises:
        InputError: ``name`` is not the plain name of a file, such as a path that leads elsewhere.
    """
    if not isinstance(name, str) or not _is_plain_name(name):
        raise InputError(f"{folder} is damaged (it names the file {shown(name)}): restore it")
    return folder / name


def _is_plain_name(name: str) -> bool:
    fits = len(name.encode("utf-8", "surrogatepass")) <= LONGEST_NAME
    return fits and name == Path(name).name and name.isprintable() and name not in {"", ".", ".."}


def require_run_name(name: str) -> None:
    """Raise InputError unless a new run may have this name.

    The name must be valid as a folder on every system, must not look like an option or a hidden file, and must print on
    one line of a terminal without control characters.
    """
    fits = len(name.encode("utf-8", "surrogatepass")) <= LONGEST_NEW_NAME
    plain = name.isprintable() and name == name.strip() and not set(name) & set('/\\<>:"|?*')
    if not (name and fits and plain and name[0] not in "-.~" and name[-1] != "."):
        raise InputError(
            f"'{shown(name)}' cannot name a run: use letters, digits, '-' and '_', such as my-run, beginning with a "
            "letter or a digit"
        )


def refuse_links_out(folder: Path) -> None:
    """Raise InputError for a link below ``folder`` that leads out of it: writes to it would change files elsewhere.

    The folder itself may be a link: the user chose its path.
    """
    real = os.path.realpath(folder)
    pending = [str(folder)]
    while pending:
        with suppress(OSError), os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_symlink():
                    target = os.path.realpath(entry.path)
                    if os.path.commonpath([real, target]) != real:
                        raise InputError(
                            f"{entry.path} is a link that leads out of the run: replace it with the file itself"
                        )
                elif entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)


def require_file_within(path: Path, places: Sequence[Path]) -> None:
    """Raise InputError unless ``path`` is a regular file in one of ``places``, or a link to one.

    The content of what a link names elsewhere would be copied, such as a private key of the user. The places
    themselves are resolved paths.
    """
    target = Path(os.path.realpath(path))
    if not any(target.is_relative_to(place) for place in places):
        raise InputError(f"{path} is a link that leads out of its folder: replace it with the file itself")
    if not target.is_file():
        raise InputError(f"{path} is not a plain file: remove it, or replace it with one")


def shown(value: Any) -> str:
    """Return an untrusted value for a message: :func:`one_line`, of at most ``MAX_SHOWN`` characters.

    A text is shown without quotes, any other value by its ``repr``.
    """
    try:
        text = value if isinstance(value, str) else repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, or very deep nesting
        text = f"a {type(value).__name__} too large to show"
    return one_line(text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}...")


def one_line(text: str) -> str:
    """Return a text with "�" for every control character: it could clear the terminal, or reorder the text."""
    return "".join("�" if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") else c for c in text)
