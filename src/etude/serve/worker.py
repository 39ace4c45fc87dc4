"""The worker: a process with torch that answers questions, and yields the processors to training.

It reads one question per line from standard input, and writes lines of JSON: any number of progress, busy and token
lines, then one answer or error, each with the question's number. A line that cancels a number ends work on it. When
standard input ends, the server is gone, and the worker ends at once.

One question runs at a time. Quick questions go first, and preempt a replay between two steps. Chats take turns, one
token each, also between the steps of a replay.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from etude.errors import EtudeError
from etude.files import json_safe
from etude.serve.busy_machine import BusyMachine
from etude.serve.collection import Collection
from etude.serve.low_priority import yield_to_others
from etude.serve.question_queue import QuestionQueue, QueuedQuestion
from etude.serve.request import Question
from etude.serve.tensor_files import TensorFiles

MOST_CHATS = 8
"""Chats that take turns; more wait. Each holds its context in memory."""
TURN = 1.0
"""Seconds that a replay runs before it may be preempted."""


class Cancelled(Exception):
    """The client no longer waits for the answer."""


class Preempted(Exception):
    """A quicker question goes first."""


@dataclass
class _Chat:
    """A running chat, and the generator of its tokens."""

    number: Any
    tokens: Generator[None, None, Mapping[str, object]] = field(repr=False)


class Worker:
    """Reads questions on one thread and answers them on another.

    Args:
        shown: the runs and models.
        tensors: the folder for large arrays.
        out: where answers are written.
        end: called when standard input ends.
    """

    def __init__(
        self,
        shown: Collection | Path,
        tensors: Path,
        out: IO[str],
        end: Callable[[], None] = lambda: os._exit(0),
    ) -> None:
        from etude.serve.answers import Answers

        self.answers = Answers(shown, TensorFiles(tensors))
        self.out, self.end = out, end
        self.queue = QuestionQueue(self._is_quick)
        self.chats: list[_Chat] = []
        self._writing = threading.Lock()

    def listen(self, lines: IO[str]) -> None:
        """Read questions until standard input ends, and then end, dropping work in progress."""
        for line in lines:
            with suppress(ValueError):
                message = json.loads(line)
                if "cancel" not in message:
                    self.queue.add(QueuedQuestion(message.get("id"), message.get("question")))
                elif self.queue.cancel(message["cancel"]):  # it had not started
                    self._write(message["cancel"], {"error": "cancelled"})
        self.end()

    def report_busy_machine(self) -> None:
        """Report to waiting clients, forever, that other programs hold the processors while they do."""
        BusyMachine(self.queue.unanswered, self._write).watch()

    def work(self) -> None:
        """Answer questions forever."""
        while True:
            queued = self.queue.take(wait=not self.chats, chats=self._room)
            if queued is not None:
                self._begin(queued)
            self._chats_turn()

    def _begin(self, queued: QueuedQuestion) -> None:
        """Answer a question; a chat takes its turns from now on."""
        number = queued.number
        begun = time.monotonic()

        def emit(message: Mapping[str, object]) -> None:
            self._emit(number, message)
            if "progress" in message:
                self._chats_turn()

        def between(left: int) -> None:
            # Preempt only after progress: replayed states may be dropped meanwhile, and it must not restart for ever.
            if (
                left < queued.left
                and time.monotonic() - begun > TURN
                and self.queue.has_quick(chats=self._room)
            ):
                queued.left = left
                raise Preempted

        def start_answer() -> Any:
            emit({"progress": {"doing": "working", "done": 0, "of": 1}})
            return self.answers.answer(Question(queued.question), emit, between)

        try:
            result = self._guarded(number, start_answer)
        except Preempted:
            self.queue.put_back(queued)
            return
        if isinstance(result, Generator):
            self.chats.append(_Chat(number, result))
        elif result is not None:
            self._finish(number, {"answer": result})

    def _chats_turn(self) -> None:
        """Let each chat make one token."""
        for chat in list(self.chats):

            def token(chat: _Chat = chat) -> dict[str, Any] | None:
                try:
                    next(chat.tokens)
                except StopIteration as end:
                    return {"answer": end.value}
                return {}

            result = self._guarded(chat.number, token)
            if result != {}:
                self.chats.remove(chat)
            if result:
                self._finish(chat.number, result)

    def _guarded(self, number: Any, work: Callable[[], Any]) -> Any:
        """Return what ``work`` returns; None after an error, which is reported to the client."""
        try:
            return work()
        except (Preempted, BrokenPipeError):
            raise
        except Cancelled:
            reason = "cancelled"
        except EtudeError as error:
            reason = str(error)
        except MemoryError:
            reason = "this machine has too little free memory for that"
        except Exception as error:  # a failure must not end the worker; the log has the traceback
            import traceback

            traceback.print_exc(file=sys.stderr)
            reason = f"the worker failed ({type(error).__name__}: {error}): see the server's log"
        self._finish(number, {"error": reason})
        return None

    @property
    def _room(self) -> bool:
        """Whether another chat may start."""
        return len(self.chats) < MOST_CHATS

    def _is_quick(self, question: Any) -> bool:
        try:
            return self.answers.is_quick(Question(question))
        except EtudeError:  # refusing it takes no time
            return True

    def _emit(self, number: Any, message: Mapping[str, object]) -> None:
        if self.queue.is_cancelled(number):
            raise Cancelled
        self._write(number, message)

    def _finish(self, number: Any, message: Mapping[str, object]) -> None:
        self.queue.forget(number)
        self._write(number, message)

    def _write(self, number: Any, message: Mapping[str, object]) -> None:
        text = json.dumps({"id": number, **json_safe(message)}, ensure_ascii=True, allow_nan=False)
        with self._writing:
            print(text, file=self.out, flush=True)


def main() -> None:
    """``python -m etude.serve.worker COLLECTION TENSORS``."""
    shown, tensors = Collection.from_argument(sys.argv[1]), Path(sys.argv[2])
    yield_to_others()
    # Keep what a library prints out of the answers.
    out, sys.stdout = sys.stdout, sys.stderr
    worker = Worker(shown, tensors, out)
    threading.Thread(target=worker.listen, args=(sys.stdin,), daemon=True).start()
    threading.Thread(target=worker.report_busy_machine, daemon=True).start()
    with suppress(BrokenPipeError):
        worker.work()


if __name__ == "__main__":
    main()
