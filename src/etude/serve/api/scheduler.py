"""The one thread that computes: it lets waiting requests join the batches of the models, and steps these in turn."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

from etude.generate.running_batch import Request, RunningBatch
from etude.serve.api.problem import Problem

_SPEED_MEMORY = 0.9
"""Share of the old value in the running mean of the speed."""


class Scheduler:
    """Bounds what waits, and decides who is next.

    A request's place in the queue is the work done when it arrives (in tokens) plus its own. So a short request passes
    longer ones that wait. A request is passed only until as much work as its own has been done since: nothing starves.

    Args:
        most_waiting: most rows that wait for a place in a batch.
    """

    def __init__(self, most_waiting: int) -> None:
        self.most_waiting = most_waiting
        self._waiting: list[tuple[int, int, RunningBatch, Request]] = []
        self._batches: list[RunningBatch] = []
        self._done = 0
        self._number = itertools.count()
        self._changed = threading.Condition()
        self._ending = False
        self._tokens_per_second = 0.0
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="etude-serve", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """End the thread; requests that are not answered end as cancelled."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def submit(self, batch: RunningBatch, requests: Sequence[Request]) -> None:
        """Queue the rows of one call, all or none.

        Raises:
            Problem: too many rows wait, with the seconds until half of them are expected to be done.
        """
        with self._changed:
            if len(self._waiting) + len(requests) > self.most_waiting:
                raise self._full(len(requests))
            for request in requests:
                self._waiting.append((self._done + request.cost, next(self._number), batch, request))
            self._waiting.sort(key=lambda entry: entry[:2])
            self._changed.notify()

    def state(self) -> dict[str, int | float]:
        """Return counts for ``/health``."""
        with self._changed:
            return {"waiting": len(self._waiting), "tokens_per_second": round(self._tokens_per_second, 1)}

    def _full(self, rows: int) -> Problem:
        if rows > self.most_waiting:
            return Problem(
                f"the request has {rows} rows (prompts times n) and at most {self.most_waiting} may wait: "
                "send fewer at a time",
                code="too_many_rows",
            )
        work = sum(entry[3].cost for entry in self._waiting) / 2
        seconds = math.ceil(work / self._tokens_per_second) if self._tokens_per_second else 1
        return Problem(
            f"{len(self._waiting)} requests wait, and {self.most_waiting} may: try again later",
            429,
            code="queue_full",
            retry_after=min(max(seconds, 1), 600),
        )

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._ending and not self._waiting and not self._batches:
                    self._changed.wait()
                if self._ending:
                    break
                joining = self._next()
            for batch, request in joining:
                self._attempt(batch, partial(batch.join, request))
            for batch in list(self._batches):
                self._timed_step(batch)
            self._batches = [batch for batch in self._batches if not batch.idle]
        for _, _, _, request in self._waiting:
            request.on_end("cancelled")
        for batch in self._batches:
            batch.end_all(Problem("the server is ending", 503))

    def _next(self) -> list[tuple[RunningBatch, Request]]:
        """Take the waiting requests that join now, one for each batch with a free row."""
        joining: dict[int, tuple[RunningBatch, Request]] = {}
        remaining = []
        for entry in self._waiting:
            _, _, batch, request = entry
            if request.cancelled:
                request.on_end("cancelled")
            elif batch.free and id(batch) not in joining:
                joining[id(batch)] = (batch, request)
            else:
                remaining.append(entry)
        self._waiting = remaining
        for batch, _ in joining.values():
            if batch not in self._batches:
                self._batches.append(batch)
        return list(joining.values())

    def _timed_step(self, batch: RunningBatch) -> None:
        before, start = batch.read_tokens + batch.new_tokens, time.perf_counter()
        self._attempt(batch, batch.step)
        done, seconds = batch.read_tokens + batch.new_tokens - before, time.perf_counter() - start
        self._done += done
        speed, old = done / max(seconds, 1e-9), self._tokens_per_second
        self._tokens_per_second = speed if not old else _SPEED_MEMORY * old + (1 - _SPEED_MEMORY) * speed

    def _attempt(self, batch: RunningBatch, action: Callable[[], None]) -> None:
        """Call an action of a batch. A failure ends the requests of that batch, and not the thread."""
        try:
            action()
        except Exception as error:
            batch.end_all(error)
