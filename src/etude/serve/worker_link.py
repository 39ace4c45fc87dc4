"""The worker process as the server sees it: begun when somebody asks, ended when nobody has asked for a while."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

IDLE_SECONDS = 600.0
LONGEST_LINE = 2**27
GONE = "the worker process ended, perhaps for want of memory: ask again"


class WorkerLink:
    """Passes questions on and answers back. Use it within one event loop."""

    def __init__(self, runs: Path, tensors: Path) -> None:
        self.runs, self.tensors = runs, tensors
        self._numbers = count(1)
        self._process: asyncio.subprocess.Process | None = None
        self._heard: dict[int, asyncio.Queue[dict[str, Any]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._beginning = asyncio.Lock()
        self._last_asked = 0.0

    async def ask(self, question: Any) -> AsyncIterator[dict[str, Any]]:
        """What the worker says to a question, line by line; the last is an answer or an error.

        Leaving the loop early cancels the question.
        """
        number, heard = next(self._numbers), asyncio.Queue[dict[str, Any]]()
        self._heard[number] = heard
        done = False
        try:
            await self._send({"id": number, "question": question})
            while not done:
                said = await heard.get()
                done = "answer" in said or "error" in said
                yield said
        finally:
            self._heard.pop(number, None)
            if not done:
                with suppress(OSError):
                    await self._send({"cancel": number}, begin=False)

    async def end(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _send(self, said: dict[str, Any], *, begin: bool = True) -> None:
        self._last_asked = asyncio.get_running_loop().time()
        async with self._beginning:
            if begin and (self._process is None or self._process.returncode is not None):
                await self._begin()
        if self._process is None or self._process.stdin is None:
            return
        self._process.stdin.write(json.dumps(said).encode() + b"\n")
        with suppress(ConnectionError):  # the listener tells of its end
            await self._process.stdin.drain()

    async def _begin(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "etude.serve.worker",
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
                    heard = self._heard.get(said.pop("id"))
                    if heard is not None:
                        heard.put_nowait(said)
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        for heard in self._heard.values():
            heard.put_nowait({"error": GONE})

    async def _end_when_idle(self, process: asyncio.subprocess.Process) -> None:
        while process.returncode is None:
            await asyncio.sleep(IDLE_SECONDS / 20)
            idle = asyncio.get_running_loop().time() - self._last_asked
            if idle > IDLE_SECONDS and not self._heard:
                await self.end()
