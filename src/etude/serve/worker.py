"""The worker: a process with torch that answers questions, and yields to a training.

It reads a question a line on its standard input and writes lines of JSON: any number of progress or token lines, then
one answer or error, each with the question's number. A line that cancels a number ends the work on it. When standard
input ends, the server is gone, and the worker ends at once.

One question is at work at a time, but none waits for all before it. What costs little comes first, and a replay is put
aside for it between two steps. Chats take turns, a token each, also between the steps of a replay.
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
from etude.serve.line import Line, Waiting
from etude.serve.low_priority import yield_to_others
from etude.serve.request import Asked
from etude.serve.tensor_files import TensorFiles

MOST_CHATS = 8
"""Chats that take turns: each holds what it has read. More wait."""
TURN = 1.0
"""Seconds that a replay has for itself before it is put aside."""


class Cancelled(Exception):
    """Nobody waits for the answer any more."""


class PutAside(Exception):
    """A question that costs less comes first."""


@dataclass
class _Chat:
    """A chat that is at work, and what gives its next token."""

    number: Any
    tokens: Generator[None, None, Mapping[str, object]] = field(repr=False)


class Worker:
    """Questions come in on one thread and are answered on the other.

    Args:
        runs: the folder of the runs.
        tensors: where large arrays go.
        out: where the answers are written.
        end: called when standard input has ended.
    """

    def __init__(
        self, runs: Path, tensors: Path, out: IO[str], end: Callable[[], None] = lambda: os._exit(0)
    ) -> None:
        from etude.serve.answers import Answers

        self.answers = Answers(runs, TensorFiles(tensors))
        self.out, self.end = out, end
        self.line = Line(self._is_quick)
        self.chats: list[_Chat] = []
        self._writing = threading.Lock()

    def listen(self, lines: IO[str]) -> None:
        """Take in questions until the server has ended; then the work in progress has no waiting client."""
        for line in lines:
            with suppress(ValueError):
                said = json.loads(line)
                if "cancel" not in said:
                    self.line.add(Waiting(said.get("id"), said.get("question")))
                elif self.line.cancel(said["cancel"]):  # it had not begun
                    self._say(said["cancel"], {"error": "cancelled"})
        self.end()

    def work(self) -> None:
        """Answer what comes, for ever."""
        while True:
            waiting = self.line.take(wait=not self.chats, chats=self._room)
            if waiting is not None:
                self._begin(waiting)
            self._chats_turn()

    def _begin(self, waiting: Waiting) -> None:
        """Answer a question, or have the chat that it is about take turns from now on."""
        number = waiting.number
        begun = time.monotonic()

        def tell(said: Mapping[str, object]) -> None:
            self._tell(number, said)
            if "progress" in said:
                self._chats_turn()

        def between(left: int) -> None:
            # Only when it came closer than ever: what it has replayed may be forgotten while others are answered.
            if (
                left < waiting.left
                and time.monotonic() - begun > TURN
                and self.line.has_quick(chats=self._room)
            ):
                waiting.left = left
                raise PutAside

        def answered() -> Any:
            tell({"progress": {"doing": "at work", "done": 0, "of": 1}})
            return self.answers.answer(Asked(waiting.question), tell, between)

        try:
            found = self._guarded(number, answered)
        except PutAside:
            self.line.put_back(waiting)
            return
        if isinstance(found, Generator):
            self.chats.append(_Chat(number, found))
        elif found is not None:
            self._end(number, {"answer": found})

    def _chats_turn(self) -> None:
        """Each chat makes a token."""
        for chat in list(self.chats):

            def token(chat: _Chat = chat) -> dict[str, Any] | None:
                try:
                    next(chat.tokens)
                except StopIteration as end:
                    return {"answer": end.value}
                return {}

            found = self._guarded(chat.number, token)
            if found != {}:
                self.chats.remove(chat)
            if found:
                self._end(chat.number, found)

    def _guarded(self, number: Any, work: Callable[[], Any]) -> Any:
        """What ``work`` returns; None where it failed, which is said."""
        try:
            return work()
        except (PutAside, BrokenPipeError):
            raise
        except Cancelled:
            said = "cancelled"
        except EtudeError as error:
            said = str(error)
        except MemoryError:
            said = "this machine has not enough memory free for that"
        except Exception as error:  # one question must not end all others; what went wrong stands in the log
            import traceback

            traceback.print_exc(file=sys.stderr)
            said = f"that failed ({type(error).__name__}: {error}): see the server's log"
        self._end(number, {"error": said})
        return None

    @property
    def _room(self) -> bool:
        """Whether another chat may begin."""
        return len(self.chats) < MOST_CHATS

    def _is_quick(self, question: Any) -> bool:
        try:
            return self.answers.is_quick(Asked(question))
        except EtudeError:  # to refuse it takes no time
            return True

    def _tell(self, number: Any, said: Mapping[str, object]) -> None:
        if self.line.is_cancelled(number):
            raise Cancelled
        self._say(number, said)

    def _end(self, number: Any, said: Mapping[str, object]) -> None:
        self.line.forget(number)
        self._say(number, said)

    def _say(self, number: Any, said: Mapping[str, object]) -> None:
        text = json.dumps({"id": number, **json_safe(said)}, ensure_ascii=True, allow_nan=False)
        with self._writing:
            print(text, file=self.out, flush=True)


def main() -> None:
    """``python -m etude.serve.worker RUNS TENSORS``."""
    runs, tensors = (Path(argument) for argument in sys.argv[1:3])
    yield_to_others()
    # Whatever a library prints must not stand between the answers.
    out, sys.stdout = sys.stdout, sys.stderr
    worker = Worker(runs, tensors, out)
    threading.Thread(target=worker.listen, args=(sys.stdin,), daemon=True).start()
    with suppress(BrokenPipeError):
        worker.work()


if __name__ == "__main__":
    main()
