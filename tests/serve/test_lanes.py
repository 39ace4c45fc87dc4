"""Questions wait for as little as they can, and those without a waiting client end soon."""

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
from etude.serve.line import Line, Waiting
from etude.serve.request import Asked
from etude.serve.worker import Worker
from etude.serve.worker_link import WorkerLink
from waiting import PATIENCE


class Told(io.TextIOBase):
    """Takes in what a worker says, line by line."""

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
        """Everything that is said until a question has a line of one kind."""
        said = []
        while True:
            said.append(self.lines.get(timeout=PATIENCE))
            if said[-1]["id"] == number and kind in said[-1]:
                return said


class Playing:
    """Answers without a network: "quick" at once, "replay" after some steps, "chat" a token a turn.

    ``step`` is called at each step of a replay and at each token, with a name for it.
    """

    def __init__(self) -> None:
        self.step: Callable[[str], None] = lambda name: None
        self.kept: dict[str, int] = {}  # how far each replay came
        self.keeps = True

    def is_quick(self, question: Asked) -> bool:
        return question.text("look") in ("quick", "chat")

    def answer(
        self, question: Asked, tell: Callable[[dict[str, Any]], None], between: Callable[[int], None]
    ) -> Any:
        look, name = question.text("look"), question.text("name")
        if look == "chat":
            return self._chat(name, tell)
        if look == "replay":
            at = self.kept.get(name, 0) if self.keeps else 0
            while at < 10:
                tell({"progress": {"doing": name, "done": at, "of": 10}})
                between(10 - at)
                self.step(f"{name} {at}")
                at += 1
                self.kept[name] = at
        return {"of": name}

    def _chat(
        self, name: str, tell: Callable[[dict[str, Any]], None]
    ) -> Generator[None, None, dict[str, Any]]:
        for number in range(20):
            tell({"token": {"id": number}})
            self.step(f"{name} {number}")
            yield
        return {"of": name}


class Desk:
    """A worker whose standard input and output are at hand."""

    def __init__(self, worker: Worker, told: Told, playing: Playing) -> None:
        self.worker, self.told, self.playing = worker, told, playing
        self.ended = threading.Event()
        self.worker.end = self.ended.set
        reading, writing = os.pipe()
        self.lines = os.fdopen(writing, "w")
        for work, arguments in ((worker.listen, (os.fdopen(reading),)), (worker.work, ())):
            threading.Thread(target=work, args=arguments, daemon=True).start()

    def send(self, *said: dict[str, Any]) -> None:
        self.lines.write("".join(json.dumps(one) + "\n" for one in said))
        self.lines.flush()

    def in_line(self, number: int) -> None:
        """Wait until the question of this number is in the line."""
        while all(waiting.number != number for waiting in list(self.worker.line._waiting)):
            threading.Event().wait(0.005)

    def arrived(self, count: int) -> None:
        """Wait until so many questions are in the line."""
        while len(self.worker.line._waiting) < count:
            threading.Event().wait(0.005)


def asking(number: int, look: str) -> dict[str, Any]:
    return {"id": number, "question": {"run": "x", "look": look, "name": f"{look} {number}"}}


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setattr("etude.serve.worker.TURN", -1.0)
    told, playing = Told(), Playing()
    worker = Worker(tmp_path, tmp_path, told)  # type: ignore[arg-type]
    worker.answers = playing  # type: ignore[assignment]
    made = Desk(worker, told, playing)
    yield made
    made.lines.close()


class Gate:
    """Holds the worker at one moment."""

    def __init__(self, at: str) -> None:
        self.at, self.reached, self.opened = at, threading.Event(), threading.Event()

    def __call__(self, name: str) -> None:
        if name == self.at:
            self.reached.set()
            assert self.opened.wait(60)


def test_a_small_question_does_not_wait_for_five_chats(desk: Desk) -> None:
    desk.playing.step = gate = Gate("chat 1 3")
    desk.send(*(asking(number, "chat") for number in range(1, 6)))
    assert gate.reached.wait(60)
    desk.send(asking(6, "quick"))
    desk.in_line(6)  # by then the five chats are, too
    gate.opened.set()
    said = desk.told.until(6, "answer")
    assert not any("answer" in one for one in said[:-1])


def test_chats_take_turns(desk: Desk) -> None:
    desk.playing.step = gate = Gate("chat 1 0")
    desk.send(asking(1, "chat"))
    assert gate.reached.wait(60)
    desk.send(*(asking(number, "chat") for number in range(2, 6)))
    desk.arrived(4)
    gate.opened.set()
    said = desk.told.until(5, "token")
    assert not any("answer" in one for one in said)  # the last has begun before the first has ended
    rest = said + desk.told.until(5, "answer")
    for number in range(1, 6):
        assert [one["token"]["id"] for one in rest if one["id"] == number and "token" in one] == list(
            range(20)
        )


def test_a_replay_is_put_aside_for_a_small_question_and_loses_nothing(desk: Desk) -> None:
    desk.playing.step = gate = Gate("replay 1 4")
    desk.send(asking(1, "replay"), asking(2, "replay"))
    assert gate.reached.wait(60)
    desk.send(asking(3, "quick"))
    desk.arrived(2)
    gate.opened.set()
    said = desk.told.until(1, "answer")
    assert {"id": 3, "answer": {"of": "quick 3"}} in said
    done = [
        one["progress"]["done"]
        for one in said
        if one["id"] == 1 and one.get("progress", {}).get("doing") == "replay 1"
    ]
    assert done == [0, 1, 2, 3, 4, 5, 5, 6, 7, 8, 9]  # put aside before the sixth step; none was made twice
    assert not any(one["id"] == 2 for one in said)  # it is resumed before what came later


def test_a_replay_ends_though_it_is_forgotten_whenever_it_is_put_aside(desk: Desk) -> None:
    """Small questions come without end, and each makes it begin again: it comes closer each time all the same."""
    desk.playing.keeps = False
    numbers = iter(range(2, 10_000))

    def step(name: str) -> None:
        if not desk.worker.line._waiting:
            desk.send(asking(next(numbers), "quick"))
            desk.arrived(1)

    desk.playing.step = step
    desk.send(asking(1, "replay"))
    desk.told.until(1, "answer")


def test_chats_go_on_beside_a_replay(desk: Desk) -> None:
    desk.playing.step = gate = Gate("chat 1 2")
    desk.send(asking(1, "chat"))
    assert gate.reached.wait(60)
    desk.send(asking(2, "replay"))
    desk.arrived(1)
    gate.opened.set()
    said = desk.told.until(2, "answer")
    assert sum(one["id"] == 1 and "token" in one for one in said) > 10


def test_what_nobody_waits_for_leaves_the_line_at_once(desk: Desk) -> None:
    desk.playing.step = gate = Gate("replay 1 4")
    desk.send(asking(1, "replay"), asking(2, "replay"))
    assert gate.reached.wait(60)
    desk.send({"cancel": 2}, {"cancel": 1})
    assert desk.told.until(2, "error")[-1] == {"id": 2, "error": "cancelled"}  # while the first is at work
    gate.opened.set()
    assert desk.told.until(1, "error")[-1] == {"id": 1, "error": "cancelled"}
    desk.send(asking(3, "chat"))
    desk.told.until(3, "token")
    desk.send({"cancel": 3}, asking(4, "quick"))
    desk.told.until(4, "answer")


def test_the_end_of_standard_input_ends_a_computation_in_its_middle(desk: Desk) -> None:
    desk.playing.step = gate = Gate("replay 1 4")
    desk.send(asking(1, "replay"))
    assert gate.reached.wait(60)
    desk.lines.close()
    assert desk.ended.wait(60)  # and what is at work is never asked
    gate.opened.set()


def test_a_worker_ends_with_its_server(tmp_path: Path) -> None:
    """The real process, within a computation that looks at nothing."""
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
        [sys.executable, "-c", code, str(tmp_path), str(tmp_path)],
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
        while process.stderr.readline() != "begun\n":
            pass
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


def test_a_worker_that_looks_at_nothing_is_ended_when_its_client_has_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And who waited behind it gets an answer, from the next worker."""
    monkeypatch.setattr(worker_link, "GRACE", 0.2)

    async def asked() -> None:
        link = WorkerLink(tmp_path, tmp_path, (sys.executable, "-c", STUCK))

        async def last(question: str) -> dict[str, Any]:
            found: dict[str, Any] = {}
            async for said in link.ask(question):
                found = said
            return found

        leaving = asyncio.ensure_future(last("stuck"))
        while link._process is None:
            await asyncio.sleep(0.01)
        behind = asyncio.ensure_future(last("mine"))
        await asyncio.sleep(0.05)
        leaving.cancel()
        assert await asyncio.wait_for(behind, 60) == {"answer": {"of": "mine"}}
        await link.end()

    asyncio.run(asked())


def test_a_worker_that_answers_in_time_is_not_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = STUCK.replace(
        "time.sleep(600)", "time.sleep(0.5); print(json.dumps({'id': 1, 'error': 'cancelled'}))"
    )

    async def asked() -> None:
        link = WorkerLink(tmp_path, tmp_path, (sys.executable, "-c", code))
        leaving = link.ask("stuck")
        waiting = asyncio.ensure_future(anext(leaving))
        while link._process is None:
            await asyncio.sleep(0.01)
        first = link._process
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await leaving.aclose()
        async for said in link.ask("mine"):
            assert said == {"answer": {"of": "mine"}}
        assert link._process is first
        assert link._left == {}
        await link.end()

    asyncio.run(asked())


def test_no_more_questions_wait_than_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_link, "MOST_WAITING", 0)

    async def asked() -> list[dict[str, Any]]:
        return [said async for said in WorkerLink(tmp_path, tmp_path).ask("x")]

    (said,) = asyncio.run(asked())
    assert "ask again" in said["error"]


def test_the_line_has_quick_ones_first_and_no_chat_where_there_is_no_room() -> None:
    line = Line(lambda question: question["look"] != "replay")
    for number, look in enumerate(("replay", "replay", "chat", "prompt", "replay")):
        line.add(Waiting(number, {"look": look}))
    assert line.has_quick(chats=False)
    taken = [line.take(wait=False, chats=False) for _ in range(2)]
    assert [one.number for one in taken if one is not None] == [3, 0]
    assert not line.has_quick(chats=False)
    assert line.has_quick(chats=True)
    assert line.cancel(4)
    assert not line.cancel(4)
    assert not line.cancel(3)  # at work: it is to look
    assert line.is_cancelled(3)
    rest = [line.take(wait=False, chats=True) for _ in range(3)]
    assert [None if one is None else one.number for one in rest] == [2, 1, None]
