"""Collect requests to stop a run early, after its current step is finished and saved.

A signal, the page, the end of the parent process or the end of a time limit can request it.
"""

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
]  # Windows has neither SIGUSR1 (batch queues send it before a job's time is over) nor SIGHUP (a closed terminal)

HANG_UP = getattr(signal, "SIGHUP", None)


@contextmanager
def stop_requests(
    stop_at: float | None = None, control: Control | None = None, orphaned: Callable[[], bool] = lambda: False
) -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether a stop was requested. In the block, signals do not end the process.

    A stop is also requested from ``stop_at`` (of ``time.monotonic``) on, through ``control``, and once the process is
    ``orphaned``. The second SIGINT raises KeyboardInterrupt as usual. SIGHUP stays ignored where it was ignored before,
    as under ``nohup``. In a thread that may not set handlers (a notebook's worker), signals act as usual.
    """
    signalled, received = threading.Event(), set[int]()

    def is_requested() -> bool:
        late = stop_at is not None and time.monotonic() >= stop_at
        return (
            signalled.is_set() or late or (control is not None and STOP in control.requested()) or orphaned()
        )

    if threading.current_thread() is not threading.main_thread():
        yield is_requested
        return

    def on_signal(number: int, frame: FrameType | None) -> None:
        if signalled.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        signalled.set()
        received.add(number)

    before = {number: signal.signal(number, on_signal) for number in SIGNALS if not _stays_ignored(number)}
    try:
        yield is_requested
    finally:
        for number, handler in before.items():
            # The kernel and the shell both send SIGHUP for a closed terminal. The second one must not end the process
            # while it still writes its last lines.
            hung_up = number in received and number == HANG_UP
            signal.signal(number, signal.SIG_IGN if hung_up else handler)


def _stays_ignored(number: signal.Signals) -> bool:
    return number == HANG_UP and signal.getsignal(number) == signal.SIG_IGN
