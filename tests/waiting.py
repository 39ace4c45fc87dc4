"""Waiting for what another thread or process does. The bound ends a test that would never end; it is no speed."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 600.0
"""Seconds: many times what any step of a test takes on a machine whose cores are all busy with other programs."""


def wait_until(ready: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Return once ``ready()`` is true.

    Raises:
        AssertionError: it was not true within ``seconds``.
    """
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)
