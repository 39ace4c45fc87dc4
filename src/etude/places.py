"""Folders of the account: the cache of prepared text, and a substitute for a missing home folder.

Accounts without a home are common: ``docker run --user 12345``, batch systems, services. So are homes that are not
writable. Their place is then taken by a private folder in the temporary folder of the machine.
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

    Without a writable home it is in a private temporary folder, and a line on standard error reports this once.

    Raises:
        InputError: ``$ETUDE_CACHE`` is neither writable nor readable.
        EtudeError: the temporary folder cannot be used either.
    """
    chosen = os.environ.get(VARIABLE)
    if chosen:
        folder = expand_home(chosen)
        if not _can_hold(folder) and not (os.path.isdir(folder) and os.access(folder, os.R_OK | os.X_OK)):
            raise InputError(
                f"{VARIABLE}={chosen} cannot be written: set it to a writable folder, or unset it"
            )
        return folder
    home = _home()
    if home is not None and _can_hold(home / ".cache" / "etude"):
        folder = home / ".cache" / "etude"
        # `ensure_user_and_home` may have set HOME to the temporary folder, silently: then the line is still due.
        if not folder.is_relative_to(_temporary_path()):
            return folder
    else:
        folder = temporary_home() / ".cache" / "etude"
    _report_fallback(folder)
    return folder


def expand_home(name: str | Path) -> Path:
    """Return a path with a leading ``~`` or ``~user`` replaced by the home folder.

    Raises:
        InputError: the account has no home folder.
    """
    try:
        return Path(name).expanduser()
    except RuntimeError:
        if os.path.lexists(name):  # a file whose name starts with "~"
            return Path(name)
        raise InputError(f"there is no home folder for '{name}': write the whole path") from None


def ensure_user_and_home() -> None:
    """Set a user name and a home folder in the environment of this process and its children, if the account has none.

    Libraries need them: matplotlib and triton a home, the cache of torch.compile a name. Call this once, when a program
    starts.

    Raises:
        EtudeError: the temporary folder cannot be used for a home.
    """
    try:
        getpass.getuser()
    except (KeyError, OSError, ImportError):
        os.environ["LOGNAME"] = f"uid-{_user_id()}"
    home = _home()
    if home is None:
        os.environ["HOME"] = str(temporary_home())
    elif not _can_hold(home / ".config" / "matplotlib") or not _can_hold(home / ".cache" / "matplotlib"):
        # Otherwise matplotlib makes a new temporary folder at each start, and prints two lines about it.
        os.environ.setdefault("MPLCONFIGDIR", str(temporary_home() / ".config" / "matplotlib"))


def temporary_home() -> Path:
    """Return a private folder of this account in the temporary folder. It is created if it is missing.

    Raises:
        EtudeError: it cannot be created, or a folder of this name belongs to another account.
    """
    folder = _temporary_path()
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise EtudeError(
            f"this account has no home folder, and {folder} cannot be created ({error.strerror}): set {VARIABLE} and "
            "HOME to folders that are writable"
        ) from None
    # Every account may create folders there, and code in the compiler's cache is executed.
    if not stat.S_ISDIR(status.st_mode) or (
        hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & 0o022)
    ):
        raise EtudeError(
            f"this account has no home folder, and {folder} belongs to another account or is writable by others: set "
            f"{VARIABLE} and HOME to folders of your own"
        )
    return folder


def _home() -> Path | None:
    """Return the home folder, which need not exist; None without one."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def _user_id() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0


def _temporary_path() -> Path:
    """Return the path of this account's private folder in the temporary folder."""
    try:
        return Path(tempfile.gettempdir()) / f"etude-{_user_id()}"
    except FileNotFoundError:
        raise EtudeError(
            "this account has no writable temporary folder: set TMPDIR to a folder that is writable"
        ) from None


def _can_hold(folder: Path) -> bool:
    """Return whether ``folder`` is writable, or could be created in its nearest existing parent."""
    # os.path instead of Path: methods of Path raise an error inside a private folder of another account.
    nearest = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    return os.path.isdir(nearest) and os.access(nearest, os.W_OK | os.X_OK)


@cache
def _report_fallback(folder: Path) -> None:
    """Print that prepared text is in ``folder``: once per process, and only on the first rank of torchrun."""
    if sys.stderr is not None and os.environ.get("LOCAL_RANK", "0") == "0":
        print(
            f"etude: this account has no writable home folder: prepared text is kept in {folder} "
            f"({VARIABLE}=FOLDER chooses another)",
            file=sys.stderr,
        )
