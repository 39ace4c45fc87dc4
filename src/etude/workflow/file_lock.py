"""Who works on what, where several processes or machines share a folder: a lock that ends with the process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from etude.files import write_failure


@contextmanager
def claimed(file: Path) -> Iterator[int | None]:
    """The descriptor that claims ``file``, or None where somebody else has it.

    Nobody else can claim it while the block lasts, or a process lives that the descriptor was passed on to.
    Without locks (Windows) every claim succeeds: one process at a time is then for the user to see to.
    """
    try:
        handle = file.open("w")
    except OSError as error:
        raise write_failure(file, error) from error
    with handle:
        try:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:
            pass
        except BlockingIOError:
            yield None
            return
        yield handle.fileno()
