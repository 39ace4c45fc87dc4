"""The worker process as the server sees it: begun when somebody asks, ended when nobody has asked for a while."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

WORKER = (sys.executable, "-m", "etude.serve.worker")
IDLE_SECONDS = 600.0
LONGEST_LINE = 2**27
GRACE = 15.0
"""Seconds after which a worker is ended that still works for a client who has left."""
MOST_WAITING = 64
"""Questions at a time."""
GONE = "the worker process ended, perhaps for want of memory: ask again"


@dataclass
class _Asked:
    """A question that somebody waits for, the worker that has it, and what that says."""

    number: int
    question: Any
    process: asyncio.subprocess.Process | None = None
    begun: bool = False  # a part of the answer was passed on
    heard: asyncio.Queue[dict[str, Any]] = field(default_factory=asyncio.Queue)


class WorkerLink:
    """Passes questions on and answers back. Use it within one event loop.

    Args:
        runs: the folder of the runs.
        tensors: where the worker writes large arrays.
        command: what begins a worker; the two folders follow it.
    """

    def __init__(self, runs: Path, tensors: Path, command: Sequence[str] = WORKER) -> None:
        self.runs, self.tensors, self.command = runs, tensors, command
        self._numbers = count(1)
        self._process: asyncio.subprocess.Process | None = None
        self._asked: dict[int, _Asked] = {}
        self._left: dict[int, asyncio.TimerHandle] = {}
        self._ended: set[asyncio.subprocess.Process] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._beginning = asyncio.Lock()
        self._last_asked = 0.0

    async def ask(self, question: Any) -> AsyncIterator[dict[str, Any]]:
        """What the worker says to a question, line by line; the last is an answer or an error.

        Leaving the loop early cancels the question.
        """
        if len(self._asked) >= MOST_WAITING:
            yield {"error": f"{MOST_WAITING} questions are waiting: ask again in a moment"}
            return
        asked = _Asked(next(self._numbers), question)
        self._asked[asked.number] = asked
        done = False
        try:
            await self._send(asked)
            while not done:
                said = await asked.heard.get()
                done = "answer" in said or "error" in said
                asked.begun |= "token" in said
                yield said
        finally:
            del self._asked[asked.number]
            if not done and asked.process is not None:
                self._cancel(asked.number, asked.process)

    async def end(self) -> None:
        """End the process."""
        for timer in self._left.values():
            timer.cancel()
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _send(self, asked: _Asked) -> None:
        self._last_asked = asyncio.get_running_loop().time()
        async with self._beginning:
            if self._process is None or self._process.returncode is not None:
                await self._begin()
        asked.process = self._process
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(
            json.dumps({"id": asked.number, "question": asked.question}).encode() + b"\n"
        )
        with suppress(ConnectionError):  # the listener tells of its end
            await self._process.stdin.drain()

    def _cancel(self, number: int, process: asyncio.subprocess.Process) -> None:
        """Have the worker end a question; where it does not in time, end the worker."""
        if process.returncode is not None or process.stdin is None:
            return
        with suppress(OSError, RuntimeError):
            process.stdin.write(json.dumps({"cancel": number}).encode() + b"\n")

        def too_long() -> None:
            self._left.pop(number, None)
            if process.returncode is None:
                self._ended.add(process)
                with suppress(ProcessLookupError):
                    process.kill()

        self._left[number] = asyncio.get_running_loop().call_later(GRACE, too_long)

    async def _begin(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *self.command,
            str(self.runs),
            str(self.tensors),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LONGEST_LINE,
            start_new_session=True,  # Ctrl-C is for the server, which ends the worker itself
        )
        for work in (self._listen(self._process), self._end_when_idle(self._process)):
            task = asyncio.create_task(work)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        with suppress(ValueError, ConnectionError):  # a line that is longer than any answer
            while line := await process.stdout.readline():
                with suppress(ValueError):
                    said = json.loads(line)
                    self._hear(said.pop("id"), said)
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        for asked in [one for one in self._asked.values() if one.process is process]:
            if asked.number not in self._asked:
                continue
            if process in self._ended and not asked.begun:
                await self._send(asked)  # it waited behind one that nobody waited for
            else:
                asked.heard.put_nowait({"error": GONE})
        self._ended.discard(process)

    def _hear(self, number: int, said: dict[str, Any]) -> None:
        if "answer" in said or "error" in said:
            timer = self._left.pop(number, None)
            if timer is not None:
                timer.cancel()
        if number in self._asked:
            self._asked[number].heard.put_nowait(said)

    async def _end_when_idle(self, process: asyncio.subprocess.Process) -> None:
        while process.returncode is None:
            await asyncio.sleep(IDLE_SECONDS / 20)
            idle = asyncio.get_running_loop().time() - self._last_asked
            if idle > IDLE_SECONDS and not self._asked:
                await self.end()
