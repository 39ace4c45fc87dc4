"""For processes that the server starts: yield the processors to training, and end with the server."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

NICENESS = 10
"""On Linux a process of this niceness gets a tenth of the share of a normal one."""


def yield_to_others() -> None:
    """Take a small share of the processors when other processes need them.

    With the idle class, which gets no share at all, the first answer takes minutes beside a training on all processors.
    """
    with suppress(AttributeError, OSError):
        os.nice(NICENESS)
    # With autogroups, Linux divides the processors among sessions first, and by niceness only within a session.
    # This process leads its own session, so this does not affect other processes.
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(NICENESS))


def end_with_standard_input() -> None:
    """End this process as soon as its standard input ends; the server holds the other end."""
    threading.Thread(target=_wait_for_the_end, daemon=True).start()


def _wait_for_the_end() -> None:
    while os.read(0, 1024):
        pass
    os._exit(1)
