"""The doctor's verdicts on runs, for clients of the page. Each examination runs in its own process."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude.diagnose.run.verdict import Verdict
from etude.errors import EtudeError
from etude.messages import command
from etude.serve import run_types
from etude.serve.diagnosis_process import Answer

LONGEST = 600.0
"""Seconds that an examination may take."""
AT_ONCE = 2
"""Examinations at the same time: each loads torch and a network."""
PATIENCE = 20.0
"""Seconds that a client waits for a free slot."""
KEPT = 16
"""Runs whose last verdicts are kept."""
_FILES = (
    "run.toml",
    "manifest.json",
    "status.json",
    "metrics.jsonl",
    "ladder.json",
    "probes.jsonl",
    "checkpoints",
    "config.json",
    "model.safetensors",
)

PROCESS = (sys.executable, "-m", "etude.serve.diagnosis_process")
"""The command of an examination, without the folder of the run."""

Verdicts = tuple[Verdict, ...]
Stamp = tuple[Any, ...]


def verdict_values(verdict: Verdict) -> run_types.Verdict:
    """Return a verdict for the page."""
    return {
        "rule": verdict.rule,
        "severity": verdict.severity,
        "finding": verdict.finding,
        "statement": verdict.statement,
        "advice": verdict.advice,
    }


@dataclass
class _Examination:
    """An examination, running or done, and the number of clients that wait for it."""

    task: asyncio.Task[Verdicts]
    stamp: Stamp
    waiting: int = 0

    @property
    def is_good(self) -> bool:
        """Whether it returned verdicts."""
        return self.task.done() and not self.task.cancelled() and self.task.exception() is None


class Doctor:
    """Examines runs for clients: each run once at a time, and again only after its files changed."""

    def __init__(self) -> None:
        self._known: OrderedDict[Path, _Examination] = OrderedDict()
        self._places = asyncio.Semaphore(AT_ONCE)

    async def verdicts(self, run: Path) -> Verdicts:
        """Return the verdicts, worst first.

        All clients of a run share one examination. It is cancelled with the last of them.

        Raises:
            EtudeError: the examination failed, or the doctor is busy with other runs.
        """
        stamp, known = _stamp(run), self._known.pop(run, None)
        if known is None or (known.task.done() and not (known.is_good and known.stamp == stamp)):
            known = _Examination(asyncio.ensure_future(self._examine(run)), stamp)
        self._known[run] = known
        while len(self._known) > KEPT:
            oldest = next(iter(self._known))
            if not self._known[oldest].task.done():
                break
            del self._known[oldest]
        known.waiting += 1
        try:
            return await asyncio.shield(known.task)
        finally:
            known.waiting -= 1
            if known.waiting == 0 and not known.task.done():
                known.task.cancel()
                self._known.pop(run, None)

    async def _examine(self, run: Path) -> Verdicts:
        try:
            await asyncio.wait_for(self._places.acquire(), PATIENCE)
        except TimeoutError:
            raise EtudeError(
                f"the doctor is busy with {AT_ONCE} runs: ask again in a minute, or use `{command('doctor', run)}`"
            ) from None
        try:
            return await examine(run)
        finally:
            self._places.release()


async def examine(run: Path) -> Verdicts:
    """Return the verdicts of a new process, which ends with this one.

    Raises:
        EtudeError: the examination failed, or took too long.
    """
    process = await asyncio.create_subprocess_exec(
        *PROCESS,
        str(run.absolute()),
        stdin=asyncio.subprocess.PIPE,  # the process ends when this pipe closes
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        output, log = await asyncio.wait_for(
            asyncio.gather(process.stdout.read(), process.stderr.read()), LONGEST
        )
    except TimeoutError:
        raise EtudeError(
            f"the doctor took more than {LONGEST:.0f} seconds: use `{command('doctor', run)}`"
        ) from None
    finally:
        process.stdin.close()
        if process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                _kill(process)
        await process.wait()
    try:
        answer = Answer.from_bytes(output)
    except ValueError:  # the process died; its last line of output may explain why
        last = log.decode(errors="replace").strip().splitlines()[-1:] or [
            "its process ended without a message"
        ]
        answer = Answer(problem=last[0])
    if answer.problem:
        raise EtudeError(f"the examination failed: {answer.problem}")
    return answer.verdicts


def _kill(process: asyncio.subprocess.Process) -> None:
    """Kill the process and its children."""
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def _stamp(run: Path) -> Stamp:
    """Return a value that changes with every file that the doctor reads."""
    stamps: list[Any] = []
    for name in _FILES:
        with suppress(OSError):
            stat = (run / name).stat()
            stamps.append((name, stat.st_mtime_ns, stat.st_size))
    return tuple(stamps)
