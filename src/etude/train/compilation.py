"""Compile the training step with ``torch.compile`` where that works; otherwise train in eager mode.

The compilation is tried once, on a real micro-batch, before step 1. A run with a time budget compiles only if
:func:`expected_compile_seconds` fits, and gives up after the ``limit`` of :func:`compile_objective`.
"""

from __future__ import annotations

import hashlib
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Literal

import torch

from etude.device import Device
from etude.errors import EtudeError
from etude.train.objectives import Objective
from etude.train.parallel import ALONE, Ranks

COLD_SECONDS, COLD_SECONDS_A_LAYER = 12.0, 8.0
"""The first compilation of a graph, on one core (measured on a Xeon). Most of it is the C++ compiler's time."""
WARM_SECONDS, WARM_SECONDS_A_LAYER = 1.0, 1.0
"""The same with the compiled code in PyTorch's cache: the network is only traced."""


class _TimeIsUp(BaseException):
    """The time limit is over. A BaseException, because the compiler converts every Exception into its own."""


def compile_objective(
    objective: Objective,
    device: Device,
    wanted: bool | Literal["auto"],
    ranks: Ranks = ALONE,
    limit: float | None = None,
) -> str | None:
    """Compile the objective's loss if ``wanted`` and possible. Returns None, or one line on why it was not compiled.

    One forward and backward pass over a real micro-batch triggers the compilation, so that a missing or broken
    compiler fails here and not in the middle of a run. The gradients of that pass are dropped. Either all ranks
    compile or none. After ``limit`` seconds the compilation is given up, on systems with timers.

    Raises:
        EtudeError: compilation was requested (``wanted`` is True) and failed.
    """
    if wanted is False:
        return "switched off by device.compile"
    if limit is not None and limit <= 0:
        return "no time is left for it"
    objective.compile()
    try:
        with _at_most(limit):
            reason = _failure(objective, device)
    except _TimeIsUp:
        _end_compiler()
        objective.model.zero_grad(set_to_none=True)
        reason = f"it was not done after {limit:.3g} s, and the run has a time limit"
    if ranks.any(reason is not None):
        objective.use_eager()
        reason = reason or "it failed in another process"
        if wanted is True:
            raise EtudeError(
                f"torch.compile, which this run requires, failed ({reason}): "
                "repair the compiler, or begin a run with --set device.compile=false"
            )
    return reason


def expected_compile_seconds(num_layers: int, *, warm: bool) -> float:
    """Return how long compilation takes on one idle core; ``warm``: with the code in PyTorch's cache."""
    if warm:
        return WARM_SECONDS + WARM_SECONDS_A_LAYER * num_layers
    return COLD_SECONDS + COLD_SECONDS_A_LAYER * num_layers


def compiled_before(graph: str) -> bool:
    """Return whether :func:`note_compiled` was called for ``graph`` with the current PyTorch and cache folder."""
    marker = _marker(graph)
    return marker is not None and marker.is_file()


def note_compiled(graph: str) -> None:
    """Record in PyTorch's cache folder that it has the compiled code of ``graph`` (a description of the graph)."""
    marker = _marker(graph)
    if marker is not None:
        with suppress(OSError):
            marker.parent.mkdir(parents=True, exist_ok=True)
            marker.touch()


def _marker(graph: str) -> Path | None:
    try:
        from torch._inductor.runtime.cache_dir_utils import cache_dir
    except ImportError:  # not a public API of PyTorch
        return None
    with suppress(OSError, KeyError, ImportError):  # a user account without name or home has no cache folder
        key = hashlib.blake2b(f"{torch.__version__} {graph}".encode(), digest_size=16).hexdigest()
        return Path(cache_dir()) / "etude" / key
    return None


@contextmanager
def _at_most(seconds: float | None) -> Iterator[None]:
    """Raise _TimeIsUp in the block after ``seconds``; never without timers (Windows) or outside the main thread."""
    main = threading.current_thread() is threading.main_thread()
    if seconds is None or not main or not hasattr(signal, "setitimer"):
        yield
        return

    def on_alarm(number: int, frame: FrameType | None) -> None:
        raise _TimeIsUp

    before = signal.signal(signal.SIGALRM, on_alarm)
    try:
        # Repeat every second: an exception that is raised in a destructor or a callback of the compiler is lost.
        signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _end_compiler() -> None:
    """Discard an interrupted compilation, and end its worker processes."""
    with suppress(Exception):  # neither is a public API of PyTorch
        torch._dynamo.reset()
    with suppress(Exception):
        from torch._inductor.async_compile import shutdown_compile_workers

        shutdown_compile_workers()


def _failure(objective: Objective, device: Device) -> str | None:
    """Run a compiled forward and backward pass over a micro-batch. Returns one line on why it failed, else None."""
    try:
        with device.autocast():
            loss = objective.loss(objective.batch(1)[0])
        loss.backward()  # type: ignore[no-untyped-call]
        return None
    except Exception as error:  # the compiler's failures have no common type
        lines = str(error).strip().splitlines()
        return f"{type(error).__name__}: {lines[0][:120] if lines else 'no message'}"
    finally:
        objective.model.zero_grad(set_to_none=True)
