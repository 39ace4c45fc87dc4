"""The two kinds of failure that a person meets, each with the exit code the command line returns."""

from __future__ import annotations


class EtudeError(Exception):
    """Something failed at run time (disk full, a damaged device, an interrupted write). Exit code 1.

    The message is one line and says what to do next.
    """

    exit_code = 1


class InputError(EtudeError):
    """The person asked for something that cannot be done as typed. Exit code 2.

    The message is one line and says what to type instead.
    """

    exit_code = 2
