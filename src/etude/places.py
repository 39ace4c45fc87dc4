"""Folders of the account: its home, the cache of prepared text, and the same where an account has none.

Accounts without a home are common: ``docker run --user 12345``, batch systems, services. So are homes that cannot be
written. What would be kept there is then kept in a private folder below the temporary one.
"""

from __future__ import annotations

import getpass
import os
import stat
import sys
import tempfile
from functools import cache
from pathlib import Path

from etude.errors import EtudeError, InputError

VARIABLE = "ETUDE_CACHE"


def cache_folder() -> Path:
    """Return the folder of prepared text: ``$ETUDE_CACHE``, or ``~/.cache/etude``.

    Where there is no home that can be written it is in a private temporary folder, and a line on standard error says
    so, once.

    Raises:
        InputError: the folder that was chosen can be neither written nor read.
        EtudeError: there is no place for it at all.
    """
    chosen = os.environ.get(VARIABLE)
    if chosen:
        folder = expand_home(chosen)
        if not _can_hold(folder) and not (os.path.isdir(folder) and os.access(folder, os.R_OK | os.X_OK)):
            raise InputError(
                f"{VARIABLE}={chosen} cannot be written: set it to a folder that can, or unset it"
            )
        return folder
    home = _home()
    if home is not None and _can_hold(home / ".cache" / "etude"):
        folder = home / ".cache" / "etude"
        if not folder.is_relative_to(_temporary_path()):
            return folder
    else:
        folder = temporary_home() / ".cache" / "etude"
    _report_fallback(folder)
    return folder


def expand_home(name: str | Path) -> Path:
    """Return the path with ``~`` replaced.

    Raises:
        InputError: there is no home folder for it.
    """
    try:
        return Path(name).expanduser()
    except RuntimeError:
        if os.path.lexists(name):  # a file whose name begins so
            return Path(name)
        raise InputError(f"there is no home folder for '{name}': write the whole path") from None


def ensure_user_and_home() -> None:
    """Give this process, and those that it starts, a user's name and a home where the account has none.

    Libraries ask for them: matplotlib and triton for a home, the compiler's cache for a name. To be called once, at the
    entry of a program.

    Raises:
        EtudeError: there is no place for a home at all.
    """
    try:
        getpass.getuser()
    except (KeyError, OSError, ImportError):
        os.environ["LOGNAME"] = f"uid-{_user_id()}"
    home = _home()
    if home is None:
        os.environ["HOME"] = str(temporary_home())
    elif not _can_hold(home / ".config" / "matplotlib") or not _can_hold(home / ".cache" / "matplotlib"):
        # It would make a folder of its own at each start, and print two lines about it.
        os.environ.setdefault("MPLCONFIGDIR", str(temporary_home() / ".config" / "matplotlib"))


def temporary_home() -> Path:
    """Return a folder below the temporary one that is this account's alone; made where it is missing.

    Raises:
        EtudeError: it cannot be made, or another account has made a folder of that name.
    """
    folder = _temporary_path()
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise EtudeError(
            f"this account has no home folder, and {folder} cannot be made ({error.strerror}): set {VARIABLE} and HOME "
            "to folders that can be written"
        ) from None
    # Anybody may make a folder there, and what lies in the compiler's cache is executed.
    if not stat.S_ISDIR(found.st_mode) or (
        hasattr(os, "getuid") and (found.st_uid != os.getuid() or found.st_mode & 0o022)
    ):
        raise EtudeError(
            f"this account has no home folder, and {folder} belongs to another or can be written by others: set "
            f"{VARIABLE} and HOME to folders of your own"
        )
    return folder


def _home() -> Path | None:
    try:
        return Path.home()
    except RuntimeError:
        return None


def _user_id() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0


def _temporary_path() -> Path:
    try:
        return Path(tempfile.gettempdir()) / f"etude-{_user_id()}"
    except FileNotFoundError:
        raise EtudeError(
            "this account has no temporary folder that can be written: set TMPDIR to one that can"
        ) from None


def _can_hold(folder: Path) -> bool:
    """Whether ``folder`` can be written, or made in the nearest folder above it that exists."""
    # os.path, since Path's own tests raise an error for what lies in another's private folder.
    nearest = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    return os.path.isdir(nearest) and os.access(nearest, os.W_OK | os.X_OK)


@cache
def _report_fallback(folder: Path) -> None:
    if sys.stderr is not None and os.environ.get("LOCAL_RANK", "0") == "0":
        print(
            f"etude: this account has no home folder that can be written: prepared text is kept in {folder} "
            f"({VARIABLE}=FOLDER chooses another)",
            file=sys.stderr,
        )
