"""``torch.compile`` where it works, eager otherwise: probed once, on the real step, before step 1.

A run that is to keep a time compiles only when that is foreseen to fit, and stops compiling when it does not: see
:func:`expected_compile_seconds` and the ``limit`` of :func:`compile_objective`.
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
"""Of one core's work, measured on a Xeon: the first compilation of a graph, most of it by the C++ compiler."""
WARM_SECONDS, WARM_SECONDS_A_LAYER = 1.0, 1.0
"""The same when the compiled code is in PyTorch's cache: the network is traced again."""


class _TimeIsUp(BaseException):
    """Not an Exception: the compiler turns those into its own."""


def compile_objective(
    objective: Objective,
    device: Device,
    wanted: bool | Literal["auto"],
    ranks: Ranks = ALONE,
    limit: float | None = None,
) -> str | None:
    """Compile the objective's loss if ``wanted`` and possible; returns one line on why it was not.

    The graph is made by one forward and backward pass over a real micro-batch, so that a compiler that is
    missing or broken shows itself here and not in the middle of a run. The gradients of that pass are dropped.
    All ranks compile, or none. After ``limit`` seconds the compilation is given up, where the system has timers.

    Raises:
        EtudeError: compilation was asked for (``wanted`` is True) and failed.
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
        reason = f"it was not done after {limit:.3g} s, and the run is to keep its time"
    if ranks.any(reason is not None):
        objective.use_eager()
        reason = reason or "it failed in another process"
        if wanted is True:
            raise EtudeError(
                f"torch.compile, which this run is to be compiled by, failed here ({reason}): "
                "mend the compiler, or begin a run with --set device.compile=false"
            )
    return reason


def expected_compile_seconds(num_layers: int, *, warm: bool) -> float:
    """What compiling takes on one core that nothing else uses."""
    if warm:
        return WARM_SECONDS + WARM_SECONDS_A_LAYER * num_layers
    return COLD_SECONDS + COLD_SECONDS_A_LAYER * num_layers


def compiled_before(graph: str) -> bool:
    """Whether :func:`note_compiled` was called for ``graph``, and PyTorch's cache is still the one of then."""
    marker = _marker(graph)
    return marker is not None and marker.is_file()


def note_compiled(graph: str) -> None:
    """Remember beside PyTorch's cache that the code of ``graph``, a description of it, is in there."""
    marker = _marker(graph)
    if marker is not None:
        with suppress(OSError):
            marker.parent.mkdir(parents=True, exist_ok=True)
            marker.touch()


def _marker(graph: str) -> Path | None:
    try:
        from torch._inductor.runtime.cache_dir_utils import cache_dir
    except ImportError:  # PyTorch does not promise it
        return None
    with suppress(OSError, KeyError, ImportError):  # an account without a name or a home has no cache
        key = hashlib.blake2b(f"{torch.__version__} {graph}".encode(), digest_size=16).hexdigest()
        return Path(cache_dir()) / "etude" / key
    return None


@contextmanager
def _at_most(seconds: float | None) -> Iterator[None]:
    """Raises _TimeIsUp in the block after ``seconds``; without limit on a system, or in a thread, without timers."""
    main = threading.current_thread() is threading.main_thread()
    if seconds is None or not main or not hasattr(signal, "setitimer"):
        yield
        return

    def on_alarm(number: int, frame: FrameType | None) -> None:
        raise _TimeIsUp

    before = signal.signal(signal.SIGALRM, on_alarm)
    try:
        # Again each second: an exception that meets a destructor or a callback of the compiler's is lost there.
        signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _end_compiler() -> None:
    """Forget a compilation that was cut short, and end the processes that are at work for it."""
    with suppress(Exception):  # PyTorch does not promise either
        torch._dynamo.reset()
    with suppress(Exception):
        from torch._inductor.async_compile import shutdown_compile_workers

        shutdown_compile_workers()


def _failure(objective: Objective, device: Device) -> str | None:
    """One line on why a compiled pass over a micro-batch fails; None when it does not."""
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
