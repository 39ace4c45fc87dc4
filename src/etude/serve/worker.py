"""The worker: a process with torch that answers one question at a time, and yields to whoever trains.

It reads a question a line on its standard input and writes lines of JSON: any number of progress or token lines, then
one answer or error, each with the question's number. A line that cancels a number ends the work on it.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from etude.errors import EtudeError
from etude.serve.asked import Asked
from etude.serve.plain import plain
from etude.serve.tensor_files import TensorFiles

NICENESS = 10
"""A tenth of the share of a process that is not nice (Linux)."""


class Cancelled(Exception):
    """Nobody waits for the answer any more."""


def yield_to_others() -> None:
    """Take a small share of the processors where others want them: a training beside this goes first.

    With no share at all (the idle class) the first answer takes minutes beside a training on all processors.
    """
    with suppress(AttributeError, OSError):
        os.nice(NICENESS)
    # Linux shares the processors out among sessions first, and only within one by niceness. This process leads a
    # session of its own, so it is nobody else's share that is made small.
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(NICENESS))


class Worker:
    """Questions come in on one thread and are answered on the other."""

    def __init__(self, runs: Path, tensors: Path, out: IO[str]) -> None:
        from etude.serve.answers import Answers

        self.answers = Answers(runs, TensorFiles(tensors))
        self.out = out
        self.waiting: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self.cancelled: set[int] = set()

    def listen(self, lines: IO[str]) -> None:
        """Take in questions until there are no more: then whoever asked is gone."""
        for line in lines:
            with suppress(ValueError):
                said = json.loads(line)
                if "cancel" in said:
                    self.cancelled.add(said["cancel"])
                else:
                    self.waiting.put(said)
        self.waiting.put(None)

    def work(self) -> None:
        """Answer what comes, until nobody asks any more."""
        while (said := self.waiting.get()) is not None:
            number = said.get("id")
            try:
                self._say(number, {"answer": self._answered(number, said.get("question"))})
            except Cancelled:
                self._say(number, {"error": "cancelled"})
            except EtudeError as error:
                self._say(number, {"error": str(error)})
            except MemoryError:
                self._say(number, {"error": "this machine has not enough memory free for that"})
            except (
                Exception
            ) as error:  # one question must not end all others; what went wrong stands in the log
                import traceback

                traceback.print_exc(file=sys.stderr)
                self._say(
                    number, {"error": f"that failed ({type(error).__name__}: {error}): see the server's log"}
                )
            self.cancelled.discard(number)

    def _answered(self, number: Any, question: Any) -> dict[str, Any]:
        def tell(said: dict[str, Any]) -> None:
            if number in self.cancelled:
                raise Cancelled
            self._say(number, said)

        tell({"progress": {"doing": "at work", "done": 0, "of": 1}})
        return self.answers.answer(Asked(question), tell)

    def _say(self, number: Any, said: dict[str, Any]) -> None:
        text = json.dumps({"id": number, **plain(said)}, ensure_ascii=True, allow_nan=False)
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
