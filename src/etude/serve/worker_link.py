"""The server's link to the worker process, which starts with the first question and ends when idle."""

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

from etude.serve.collection import Collection

WORKER = (sys.executable, "-m", "etude.serve.worker")
IDLE_SECONDS = 600.0
"""Seconds without a question after which the worker is ended."""
LONGEST_LINE = 2**27
GRACE = 15.0
"""Seconds that a worker may spend on a cancelled question before it is killed."""
MOST_WAITING = 64
"""Questions at a time."""
GONE = "the worker process ended, perhaps for lack of memory: ask again"


@dataclass
class _Pending:
    """A question without a final answer, the worker that has it, and the worker's messages."""

    number: int
    question: Any
    process: asyncio.subprocess.Process | None = None
    streamed: bool = False  # a part of the answer has reached the client
    messages: asyncio.Queue[dict[str, Any]] = field(default_factory=asyncio.Queue)


class WorkerLink:
    """Passes questions to the worker and its answers back. Use it within one event loop.

    Args:
        shown: the runs and models.
        tensors: where the worker writes large arrays.
        command: starts a worker; the collection and the folder are appended.
    """

    def __init__(self, shown: Collection | Path, tensors: Path, command: Sequence[str] = WORKER) -> None:
        self.shown = shown if isinstance(shown, Collection) else Collection(shown)
        self.tensors, self.command = tensors, command
        self._numbers = count(1)
        self._process: asyncio.subprocess.Process | None = None
        self._pending: dict[int, _Pending] = {}
        self._grace_timers: dict[int, asyncio.TimerHandle] = {}
        self._killed: set[asyncio.subprocess.Process] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._starting = asyncio.Lock()
        self._last_question = 0.0

    async def ask(self, question: Any) -> AsyncIterator[dict[str, Any]]:
        """Yield the worker's messages on a question; the last is an answer or an error.

        Leaving the loop early cancels the question.
        """
        if len(self._pending) >= MOST_WAITING:
            yield {"error": f"{MOST_WAITING} questions are waiting: ask again in a moment"}
            return
        pending = _Pending(next(self._numbers), question)
        self._pending[pending.number] = pending
        done = False
        try:
            await self._send(pending)
            while not done:
                message = await pending.messages.get()
                done = "answer" in message or "error" in message
                pending.streamed |= "token" in message
                yield message
        finally:
            del self._pending[pending.number]
            if not done and pending.process is not None:
                self._cancel(pending.number, pending.process)

    async def end(self) -> None:
        """End the process."""
        for timer in self._grace_timers.values():
            timer.cancel()
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _send(self, pending: _Pending) -> None:
        self._last_question = asyncio.get_running_loop().time()
        async with self._starting:
            if self._process is None or self._process.returncode is not None:
                await self._begin()
        pending.process = self._process
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(
            json.dumps({"id": pending.number, "question": pending.question}).encode() + b"\n"
        )
        with suppress(ConnectionError):  # the listener reports the end of the process
            await self._process.stdin.drain()

    def _cancel(self, number: int, process: asyncio.subprocess.Process) -> None:
        """Cancel a question in the worker, and kill the worker if it does not react in time."""
        if process.returncode is not None or process.stdin is None:
            return
        with suppress(OSError, RuntimeError):
            process.stdin.write(json.dumps({"cancel": number}).encode() + b"\n")

        def too_long() -> None:
            self._grace_timers.pop(number, None)
            if process.returncode is None:
                self._killed.add(process)
                with suppress(ProcessLookupError):
                    process.kill()

        self._grace_timers[number] = asyncio.get_running_loop().call_later(GRACE, too_long)

    async def _begin(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *self.command,
            self.shown.to_argument(),
            str(self.tensors),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LONGEST_LINE,
            start_new_session=True,  # Ctrl-C goes to the server only, which ends the worker
        )
        for work in (self._listen(self._process), self._end_when_idle(self._process)):
            task = asyncio.create_task(work)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        with suppress(ValueError, ConnectionError):  # a line longer than any answer
            while line := await process.stdout.readline():
                with suppress(ValueError):
                    message = json.loads(line)
                    self._deliver(message.pop("id"), message)
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        for pending in [candidate for candidate in self._pending.values() if candidate.process is process]:
            if pending.number not in self._pending:
                continue
            if process in self._killed and not pending.streamed:
                await self._send(pending)  # it only waited behind the cancelled question
            else:
                pending.messages.put_nowait({"error": GONE})
        self._killed.discard(process)

    def _deliver(self, number: int, message: dict[str, Any]) -> None:
        if "answer" in message or "error" in message:
            timer = self._grace_timers.pop(number, None)
            if timer is not None:
                timer.cancel()
        if number in self._pending:
            self._pending[number].messages.put_nowait(message)

    async def _end_when_idle(self, process: asyncio.subprocess.Process) -> None:
        while process.returncode is None:
            await asyncio.sleep(IDLE_SECONDS / 20)
            idle = asyncio.get_running_loop().time() - self._last_question
            if idle > IDLE_SECONDS and not self._pending:
                await self.end()
