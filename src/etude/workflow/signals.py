"""What makes a run stop early, finish its step and save: a signal, or the end of the time that a batch queue gives."""

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
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
]  # Windows has no SIGUSR1, which batch queues send before their time is over


@contextmanager
def asked_to_stop(
    stop_at: float | None = None, control: Control | None = None
) -> Iterator[Callable[[], bool]]:
    """Inside, the signals set a flag instead of ending the process; yields a function that reads it.

    It is up from ``stop_at`` (of ``time.monotonic``) on too, and when ``control`` asks for it. The second SIGINT raises
    KeyboardInterrupt as usual. In a thread that may not set handlers (a notebook's worker) signals do as always.
    """
    asked = threading.Event()

    def is_asked() -> bool:
        late = stop_at is not None and time.monotonic() >= stop_at
        return asked.is_set() or late or (control is not None and STOP in control.asked())

    if threading.current_thread() is not threading.main_thread():
        yield is_asked
        return

    def on_signal(number: int, frame: FrameType | None) -> None:
        if asked.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.set()

    before = {number: signal.signal(number, on_signal) for number in SIGNALS}
    try:
        yield is_asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
