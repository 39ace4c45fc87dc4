"""The two kinds of error that the user sees, with the exit codes of the command line."""

from __future__ import annotations


class EtudeError(Exception):
    """A failure at run time, such as a full disk, a faulty device or an interrupted write. Exit code 1.

    The message is one line, and ends with what to do next.
    """

    exit_code = 1


class InputError(EtudeError):
    """A request that cannot be carried out as typed. Exit code 2.

    The message is one line, and ends with what to type instead.
    """

    exit_code = 2
