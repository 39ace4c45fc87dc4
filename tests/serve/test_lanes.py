"""Questions wait as little as possible, and those without a waiting client end soon."""

from __future__ import annotations

import asyncio
import io
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from etude.serve import worker_link
from etude.serve.collection import Collection
from etude.serve.question_queue import QuestionQueue, QueuedQuestion
from etude.serve.request import Question
from etude.serve.worker import Worker
from etude.serve.worker_link import WorkerLink
from waiting import PATIENCE


class Output(io.TextIOBase):
    """Collects a worker's messages, line by line."""

    def __init__(self) -> None:
        self.lines: queue.Queue[dict[str, Any]] = queue.Queue()
        self.part = ""

    def write(self, text: str) -> int:
        self.part += text
        *whole, self.part = self.part.split("\n")
        for line in whole:
            self.lines.put(json.loads(line))
        return len(text)

    def until(self, number: int, kind: str) -> list[dict[str, Any]]:
        """Return every message up to one of a ``kind`` for question ``number``."""
        messages = []
        while True:
            messages.append(self.lines.get(timeout=PATIENCE))
            if messages[-1]["id"] == number and kind in messages[-1]:
                return messages


class FakeAnswers:
    """Answers without a network: "quick" at once, "replay" after some steps, "chat" one token per turn.

    ``step`` is called with a name at each step of a replay and at each token.
    """

    def __init__(self) -> None:
        self.step: Callable[[str], None] = lambda name: None
        self.kept: dict[str, int] = {}  # completed steps of each replay
        self.keeps = True

    def is_quick(self, question: Question) -> bool:
        return question.text("look") in ("quick", "chat")

    def answer(
        self, question: Question, emit: Callable[[dict[str, Any]], None], between: Callable[[int], None]
    ) -> Any:
        look, name = question.text("look"), question.text("name")
        if look == "chat":
            return self._chat(name, emit)
        if look == "replay":
            at = self.kept.get(name, 0) if self.keeps else 0
            while at < 10:
                emit({"progress": {"doing": name, "done": at, "of": 10}})
                between(10 - at)
                self.step(f"{name} {at}")
                at += 1
                self.kept[name] = at
        return {"of": name}

    def _chat(
        self, name: str, emit: Callable[[dict[str, Any]], None]
    ) -> Generator[None, None, dict[str, Any]]:
        for number in range(20):
            emit({"token": {"id": number}})
            self.step(f"{name} {number}")
            yield
        return {"of": name}


class Desk:
    """A worker with its standard input and output."""

    def __init__(self, worker: Worker, output: Output, answers: FakeAnswers) -> None:
        self.worker, self.output, self.answers = worker, output, answers
        self.ended = threading.Event()
        self.worker.end = self.ended.set
        reading, writing = os.pipe()
        self.lines = os.fdopen(writing, "w")
        for work, arguments in ((worker.listen, (os.fdopen(reading),)), (worker.work, ())):
            threading.Thread(target=work, args=arguments, daemon=True).start()

    def send(self, *messages: dict[str, Any]) -> None:
        self.lines.write("".join(json.dumps(message) + "\n" for message in messages))
        self.lines.flush()

    def has_queued(self, number: int) -> None:
        """Wait until the question with this number is in the queue."""
        while all(waiting.number != number for waiting in list(self.worker.queue._waiting)):
            threading.Event().wait(0.005)

    def arrived(self, count: int) -> None:
        """Wait until ``count`` questions are in the queue."""
        while len(self.worker.queue._waiting) < count:
            threading.Event().wait(0.005)


def question(number: int, look: str) -> dict[str, Any]:
    return {"id": number, "question": {"run": "x", "look": look, "name": f"{look} {number}"}}


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setattr("etude.serve.worker.TURN", -1.0)
    output, answers = Output(), FakeAnswers()
    worker = Worker(tmp_path, tmp_path, output)  # type: ignore[arg-type]
    worker.answers = answers  # type: ignore[assignment]
    made = Desk(worker, output, answers)
    yield made
    made.lines.close()


class Gate:
    """Stops the worker at one moment."""

    def __init__(self, at: str) -> None:
        self.at, self.reached, self.opened = at, threading.Event(), threading.Event()

    def __call__(self, name: str) -> None:
        if name == self.at:
            self.reached.set()
            assert self.opened.wait(60)


def test_a_quick_question_does_not_wait_for_five_chats(desk: Desk) -> None:
    desk.answers.step = gate = Gate("chat 1 3")
    desk.send(*(question(number, "chat") for number in range(1, 6)))
    assert gate.reached.wait(60)
    desk.send(question(6, "quick"))
    desk.has_queued(6)  # by then the five chats are, too
    gate.opened.set()
    messages = desk.output.until(6, "answer")
    assert not any("answer" in message for message in messages[:-1])


def test_chats_take_turns(desk: Desk) -> None:
    desk.answers.step = gate = Gate("chat 1 0")
    desk.send(question(1, "chat"))
    assert gate.reached.wait(60)
    desk.send(*(question(number, "chat") for number in range(2, 6)))
    desk.arrived(4)
    gate.opened.set()
    messages = desk.output.until(5, "token")
    assert not any("answer" in message for message in messages)  # the last starts before the first ends
    rest = messages + desk.output.until(5, "answer")
    for number in range(1, 6):
        assert [
            message["token"]["id"] for message in rest if message["id"] == number and "token" in message
        ] == list(range(20))


def test_a_quick_question_preempts_a_replay_which_loses_nothing(desk: Desk) -> None:
    desk.answers.step = gate = Gate("replay 1 4")
    desk.send(question(1, "replay"), question(2, "replay"))
    assert gate.reached.wait(60)
    desk.send(question(3, "quick"))
    desk.arrived(2)
    gate.opened.set()
    messages = desk.output.until(1, "answer")
    assert {"id": 3, "answer": {"of": "quick 3"}} in messages
    done = [
        message["progress"]["done"]
        for message in messages
        if message["id"] == 1 and message.get("progress", {}).get("doing") == "replay 1"
    ]
    assert done == [0, 1, 2, 3, 4, 5, 5, 6, 7, 8, 9]  # preempted before the sixth step; no step ran twice
    assert not any(message["id"] == 2 for message in messages)  # it is resumed before later questions


def test_a_replay_ends_even_if_its_states_are_dropped_at_each_preemption(desk: Desk) -> None:
    """Quick questions never stop, and each makes it start over; it still gets further each time."""
    desk.answers.keeps = False
    numbers = iter(range(2, 10_000))

    def step(name: str) -> None:
        if not desk.worker.queue._waiting:
            desk.send(question(next(numbers), "quick"))
            desk.arrived(1)

    desk.answers.step = step
    desk.send(question(1, "replay"))
    desk.output.until(1, "answer")


def test_chats_continue_beside_a_replay(desk: Desk) -> None:
    desk.answers.step = gate = Gate("chat 1 2")
    desk.send(question(1, "chat"))
    assert gate.reached.wait(60)
    desk.send(question(2, "replay"))
    desk.arrived(1)
    gate.opened.set()
    messages = desk.output.until(2, "answer")
    assert sum(message["id"] == 1 and "token" in message for message in messages) > 10


def test_a_cancelled_question_leaves_the_queue_at_once(desk: Desk) -> None:
    desk.answers.step = gate = Gate("replay 1 4")
    desk.send(question(1, "replay"), question(2, "replay"))
    assert gate.reached.wait(60)
    desk.send({"cancel": 2}, {"cancel": 1})
    assert desk.output.until(2, "error")[-1] == {"id": 2, "error": "cancelled"}  # while the first is running
    gate.opened.set()
    assert desk.output.until(1, "error")[-1] == {"id": 1, "error": "cancelled"}
    desk.send(question(3, "chat"))
    desk.output.until(3, "token")
    desk.send({"cancel": 3}, question(4, "quick"))
    desk.output.until(4, "answer")


def test_the_end_of_standard_input_ends_a_running_computation(desk: Desk) -> None:
    desk.answers.step = gate = Gate("replay 1 4")
    desk.send(question(1, "replay"))
    assert gate.reached.wait(60)
    desk.lines.close()
    assert desk.ended.wait(60)  # without waiting for the computation
    gate.opened.set()


def test_a_worker_ends_with_its_server(tmp_path: Path) -> None:
    """The real process, in a computation that never checks for the end."""
    code = (
        "import sys, time\n"
        "from etude.serve import answers, worker\n"
        "def answer(*given):\n"
        "    print('begun', file=sys.stderr, flush=True)\n"
        "    time.sleep(600)\n"
        "answers.Answers.answer = answer\n"
        "worker.main()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, Collection(tmp_path).to_argument(), str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stderr is not None
    try:
        process.stdin.write(json.dumps({"id": 1, "question": {"run": "x"}}) + "\n")
        process.stdin.flush()
        lines = iter(process.stderr.readline, "")
        assert "begun\n" in lines  # it ends where the process ends
        process.stdin.close()
        process.wait(60)
    finally:
        process.kill()
        process.stderr.close()


STUCK = """
import json, sys
for line in sys.stdin:
    said = json.loads(line)
    question = said.get("question")
    if question == "stuck":
        import time
        time.sleep(600)
    elif question is not None:
        print(json.dumps({"id": said["id"], "answer": {"of": question}}), flush=True)
"""


def test_a_blocked_worker_is_killed_after_its_client_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A question that waited behind it gets its answer from the next worker."""
    monkeypatch.setattr(worker_link, "GRACE", 0.2)

    async def run_link() -> None:
        link = WorkerLink(tmp_path, tmp_path, (sys.executable, "-c", STUCK))

        async def last(question: str) -> dict[str, Any]:
            last_message: dict[str, Any] = {}
            async for message in link.ask(question):
                last_message = message
            return last_message

        leaving = asyncio.ensure_future(last("stuck"))
        while link._process is None:
            await asyncio.sleep(0.01)
        behind = asyncio.ensure_future(last("mine"))
        await asyncio.sleep(0.05)
        leaving.cancel()
        assert await asyncio.wait_for(behind, 60) == {"answer": {"of": "mine"}}
        await link.end()

    asyncio.run(run_link())


def test_a_worker_that_reacts_in_time_is_not_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = STUCK.replace(
        "time.sleep(600)", "time.sleep(0.5); print(json.dumps({'id': 1, 'error': 'cancelled'}))"
    )

    async def run_link() -> None:
        link = WorkerLink(tmp_path, tmp_path, (sys.executable, "-c", code))
        leaving = link.ask("stuck")
        waiting = asyncio.ensure_future(anext(leaving))
        while link._process is None:
            await asyncio.sleep(0.01)
        first = link._process
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await leaving.aclose()
        async for message in link.ask("mine"):
            assert message == {"answer": {"of": "mine"}}
        assert link._process is first
        assert link._grace_timers == {}
        await link.end()

    asyncio.run(run_link())


def test_too_many_waiting_questions_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_link, "MOST_WAITING", 0)

    async def run_link() -> list[dict[str, Any]]:
        return [message async for message in WorkerLink(tmp_path, tmp_path).ask("x")]

    (message,) = asyncio.run(run_link())
    assert "ask again" in message["error"]


def test_the_queue_puts_quick_questions_first_and_holds_back_chats() -> None:
    waiting = QuestionQueue(lambda question: question["look"] != "replay")
    for number, look in enumerate(("replay", "replay", "chat", "prompt", "replay")):
        waiting.add(QueuedQuestion(number, {"look": look}))
    assert waiting.has_quick(chats=False)
    taken = [waiting.take(wait=False, chats=False) for _ in range(2)]
    assert [queued.number for queued in taken if queued is not None] == [3, 0]
    assert not waiting.has_quick(chats=False)
    assert waiting.has_quick(chats=True)
    assert waiting.cancel(4)
    assert not waiting.cancel(4)
    assert not waiting.cancel(3)  # running: it is only marked
    assert waiting.is_cancelled(3)
    rest = [waiting.take(wait=False, chats=True) for _ in range(3)]
    assert [None if queued is None else queued.number for queued in rest] == [2, 1, None]
