"""For processes that the server starts: let a training beside them go first, and end when the server does."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

NICENESS = 10
"""A process of this niceness gets a tenth of the share of one that is not nice (Linux)."""


def yield_to_others() -> None:
    """Take a small share of the processors where others want them.

    With no share at all (the idle class) the first answer takes minutes beside a training on all processors.
    """
    with suppress(AttributeError, OSError):
        os.nice(NICENESS)
    # Linux shares the processors out among sessions first, and only within one by niceness. This process leads a
    # session of its own, so no other process gets less.
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(NICENESS))


def end_with_standard_input() -> None:
    """End this process as soon as its standard input ends: the server holds the other end."""
    threading.Thread(target=_wait_for_the_end, daemon=True).start()


def _wait_for_the_end() -> None:
    while os.read(0, 1024):
        pass
    os._exit(1)
