"""What makes a run stop early, finish its step and save: a signal, the end of its parent, or the end of its time."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from etude.train.control import STOP, Control

STOPPED = 75
"""The exit code of a run that was stopped and is saved: EX_TEMPFAIL of <sysexits.h>, "try again later"."""
SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP") if hasattr(signal, name)
]  # Windows has neither SIGUSR1, which batch queues send before their time is over, nor SIGHUP, of a closed terminal

HANG_UP = getattr(signal, "SIGHUP", None)


@contextmanager
def asked_to_stop(
    stop_at: float | None = None, control: Control | None = None, orphaned: Callable[[], bool] = lambda: False
) -> Iterator[Callable[[], bool]]:
    """Inside, the signals set a flag instead of ending the process; yields a function that reads it.

    It is up from ``stop_at`` (of ``time.monotonic``) on too, when ``control`` asks for it, and when the process is
    ``orphaned``. The second SIGINT raises KeyboardInterrupt as usual. A SIGHUP that is ignored, as under ``nohup``,
    stays so. In a thread that may not set handlers (a notebook's worker) signals do as always.
    """
    asked, received = threading.Event(), set[int]()

    def is_asked() -> bool:
        late = stop_at is not None and time.monotonic() >= stop_at
        return asked.is_set() or late or (control is not None and STOP in control.requested()) or orphaned()

    if threading.current_thread() is not threading.main_thread():
        yield is_asked
        return

    def on_signal(number: int, frame: FrameType | None) -> None:
        if asked.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.set()
        received.add(number)

    before = {number: signal.signal(number, on_signal) for number in SIGNALS if not _stays_ignored(number)}
    try:
        yield is_asked
    finally:
        for number, handler in before.items():
            # The kernel and the shell each report a terminal that was closed: the second must not end the last lines.
            hung_up = number in received and number == HANG_UP
            signal.signal(number, signal.SIG_IGN if hung_up else handler)


def _stays_ignored(number: signal.Signals) -> bool:
    return number == HANG_UP and signal.getsignal(number) == signal.SIG_IGN
