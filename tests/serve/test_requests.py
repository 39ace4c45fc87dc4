"""What a request may cost: bodies, files without end, the doctor's processes, and clients that leave."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from etude.diagnose.run.verdict import Verdict
from etude.errors import EtudeError
from etude.run.follow import read_from
from etude.serve import verdicts
from etude.serve.abilities import abilities_of
from etude.serve.app import make_app
from etude.serve.diagnosis_process import Answer
from etude.serve.facts import facts_of, run_lines
from etude.serve.guard import MOST_BODY
from etude.serve.verdicts import Doctor
from serving import TOKEN, served
from waiting import PATIENCE
from watched import Watched

POST = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.3"},
    "http_version": "1.1",
    "method": "POST",
    "scheme": "http",
    "path": "/api/ask",
    "raw_path": b"/api/ask",
    "query_string": b"",
    "client": ("127.0.0.1", 1),
    "server": ("127.0.0.1", 8123),
    "headers": [
        (b"host", b"127.0.0.1:8123"),
        (b"content-type", b"application/json"),
        (b"transfer-encoding", b"chunked"),
        (b"authorization", f"Bearer {TOKEN.value}".encode()),
    ],
}


def posted(runs: Path, messages: Callable[[int], dict[str, Any]]) -> tuple[int, list[dict[str, Any]]]:
    """Post the results of ``messages``, one after another. Returns how many were read, and the response."""
    taken, sent = 0, []

    async def receive() -> dict[str, Any]:
        nonlocal taken
        taken += 1
        return messages(taken)

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(make_app(runs, TOKEN)({**POST}, receive, send))
    return taken, sent


def test_a_body_without_a_length_is_counted_as_it_comes(tmp_path: Path) -> None:
    """An endless chunked body is read only up to the limit."""
    part = b"[" + b" " * 99_999

    def endless(number: int) -> dict[str, Any]:
        assert number < 50
        return {"type": "http.request", "body": part, "more_body": True}

    taken, sent = posted(tmp_path, endless)
    assert sent[0]["status"] == 413
    assert taken == MOST_BODY // len(part) + 1


def test_a_long_body_that_fits_is_read(tmp_path: Path) -> None:
    body = json.dumps({"run": "x" * 1000}).encode().ljust(MOST_BODY)
    _, sent = posted(tmp_path, lambda _: {"type": "http.request", "body": body, "more_body": False})
    assert sent[0]["status"] == 404


def test_a_client_that_leaves_within_its_body_leaves_no_traceback(tmp_path: Path) -> None:
    def messages(number: int) -> dict[str, Any]:
        if number == 1:
            return {"type": "http.request", "body": b'{"run"', "more_body": True}
        return {"type": "http.disconnect"}

    posted(tmp_path, messages)  # raises nothing


def test_a_real_server_refuses_and_stays_silent(studied: Watched, tmp_path: Path) -> None:
    with served(studied.path.parent, tmp_path / "log", studied.cache) as server:
        head = (
            f"POST /api/ask HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {server.token}\r\nTransfer-Encoding: chunked\r\n\r\n"
        ).encode()
        chunk = b"20000\r\n" + b" " * 0x20000 + b"\r\n"
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as endless:
            endless.sendall(head)
            with suppress(OSError):  # the server hangs up
                for _ in range(4000):  # 500 MB
                    endless.sendall(chunk)
                pytest.fail("half a gigabyte was taken")
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as leaving:
            leaving.sendall(head + b"20000\r\n  ")
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as later:
            later.sendall(head + b"2\r\n{}\r\n0\r\n\r\n")
            assert later.recv(20).startswith(b"HTTP/1.1 404")
        assert server.error_output() == ""


@pytest.mark.parametrize(
    "file",
    [
        "metrics.jsonl",
        "samples.jsonl",
        "status.json",
        "manifest.json",
        "ladder.json",
        "probes.jsonl",
        "run.toml",
        "checkpoints/step-00000000/model.safetensors",
        "checkpoints/step-00000000/config.json",
    ],
)
def test_a_pipe_in_a_run_is_never_waited_for(file: str, studied: Watched, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "piped"
    shutil.copytree(studied.path, run)
    (run / file).unlink(missing_ok=True)
    os.mkfifo(run / file)

    def look() -> None:
        for looked in (
            lambda: run_lines(run.parent),
            lambda: facts_of(run, True),
            lambda: read_from(run / "metrics.jsonl", 0),
            lambda: read_from(run / "samples.jsonl", 0),
            lambda: abilities_of(run),
        ):
            with suppress(EtudeError):
                looked()

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    looking.join(PATIENCE)
    hung = looking.is_alive()
    if hung:  # let the thread finish before the next test
        os.close(os.open(run / file, os.O_RDWR | os.O_NONBLOCK))
    assert not hung


def verdicts_of(rule: str) -> tuple[Verdict, ...]:
    return (Verdict(rule, "fine", "", ""),)


class Examining:
    """Replaces the doctor's process by examinations that end on demand."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.free: dict[str, asyncio.Event] = {}

    async def __call__(self, run: Path) -> tuple[Verdict, ...]:
        self.begun.append(run.name)
        try:
            await self.free.setdefault(run.name, asyncio.Event()).wait()
        finally:
            self.ended.append(run.name)
        return verdicts_of(run.name)


@pytest.fixture
def examining(monkeypatch: pytest.MonkeyPatch) -> Examining:
    replacement = Examining()
    monkeypatch.setattr(verdicts, "examine", replacement)
    return replacement


def test_a_doctor_is_not_begun_by_a_get(client: TestClient, examining: Examining) -> None:
    assert client.get("/api/runs/llama/doctor").status_code in (404, 405)
    assert examining.begun == []


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_a_slow_examination_does_not_keep_another_run_waiting(examining: Examining, tmp_path: Path) -> None:
    async def both() -> None:
        doctor = Doctor()
        slow = asyncio.ensure_future(doctor.verdicts(tmp_path / "slow"))
        await settle()
        examining.free["quick"] = asyncio.Event()
        examining.free["quick"].set()
        assert await asyncio.wait_for(doctor.verdicts(tmp_path / "quick"), 30) == verdicts_of("quick")
        assert not slow.done()
        slow.cancel()

    asyncio.run(both())


def test_clients_share_an_examination_and_its_answer_until_the_run_changes(
    examining: Examining, tmp_path: Path
) -> None:
    async def asked() -> None:
        doctor = Doctor()
        (tmp_path / "metrics.jsonl").write_text("1")
        some = [asyncio.ensure_future(doctor.verdicts(tmp_path)) for _ in range(5)]
        await settle()
        some[0].cancel()  # the others are still waiting
        await settle()
        assert examining.begun == [tmp_path.name]
        assert examining.ended == []
        examining.free[tmp_path.name].set()
        assert await asyncio.gather(*some[1:]) == [verdicts_of(tmp_path.name)] * 4
        await doctor.verdicts(tmp_path)
        assert len(examining.begun) == 1
        (tmp_path / "metrics.jsonl").write_text("12")
        await doctor.verdicts(tmp_path)
        assert len(examining.begun) == 2

    asyncio.run(asked())


def test_an_examination_ends_with_its_last_client(examining: Examining, tmp_path: Path) -> None:
    async def left() -> None:
        doctor = Doctor()
        some = [asyncio.ensure_future(doctor.verdicts(tmp_path)) for _ in range(2)]
        await settle()
        for examination in some:
            examination.cancel()
        await settle()
        assert examining.ended == [tmp_path.name]

    asyncio.run(left())


def test_a_busy_doctor_refuses(examining: Examining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdicts, "PATIENCE", 0.01)

    async def third() -> None:
        doctor = Doctor()
        some = [asyncio.ensure_future(doctor.verdicts(tmp_path / name)) for name in ("a", "b")]
        await settle()
        with pytest.raises(EtudeError, match="ask again in a minute"):
            await doctor.verdicts(tmp_path / "c")
        for examination in some:
            examination.cancel()

    asyncio.run(third())


def test_the_doctors_process_ends_with_the_server() -> None:
    """The server holds its standard input, so it ends even if the server is killed."""
    sleeping = (
        "from etude.serve import diagnosis_process as process\n"
        "import sys, time\n"
        "process.answer_for = lambda run: print('begun', file=sys.__stdout__, flush=True) or time.sleep(600)\n"
        "process.main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", sleeping, "RUN"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "begun\n"
        process.stdin.close()
        process.wait(60)
    finally:
        process.kill()
        process.stdout.close()


def test_an_answer_survives_serialization() -> None:
    verdict = Verdict("a rule", "problem", "a name of no UTF-8: \udcff\n", "é 語", "`etude train`")
    for answer in (Answer((verdict, verdict)), Answer(problem="no run\nthere")):
        assert answer.to_bytes().count(b"\n") == 1
        assert Answer.from_bytes(answer.to_bytes()) == answer


def test_a_failed_examination_gives_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EtudeError, match=r"the examination failed: .*is not a run or a model folder"):
        asyncio.run(verdicts.examine(tmp_path))
    monkeypatch.setattr(
        verdicts, "PROCESS", (sys.executable, "-c", "raise SystemExit('killed by a cosmic ray')")
    )
    with pytest.raises(EtudeError, match="the examination failed: killed by a cosmic ray"):
        asyncio.run(verdicts.examine(tmp_path))


def test_an_examination_is_cancelled_with_its_client(
    studied: Watched, examining: Examining, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over HTTP: a client that hangs up cancels the examination."""
    path = "/api/runs/llama/doctor"
    gone = threading.Event()

    async def receive_then_leave() -> dict[str, Any]:
        if not gone.is_set():
            gone.set()
            return {"type": "http.request", "body": b"{}", "more_body": False}
        while not examining.begun:
            await asyncio.sleep(0.01)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        pass

    monkeypatch.setattr("etude.serve.app.POLL_SECONDS", 0.01)
    app = make_app(studied.path.parent, TOKEN)
    scope = {**POST, "path": path, "raw_path": path.encode()}
    asyncio.run(asyncio.wait_for(app(scope, receive_then_leave, send), 60))
    assert examining.ended == ["llama"]


def test_the_token_is_required_before_a_body_is_read(tmp_path: Path) -> None:
    async def receive() -> dict[str, Any]:
        pytest.fail("a stranger's body was read")

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(name, value) for name, value in POST["headers"] if name != b"authorization"]
    asyncio.run(make_app(tmp_path, TOKEN)({**POST, "headers": headers}, receive, send))
    assert sent[0]["status"] == 401


def test_lists_of_a_wrong_length_are_one_line(client: TestClient) -> None:
    for rows in ([5], [], [1, 2, 3], [[1], 2], [1, "2"], {"0": 1}):
        question = {"run": "llama", "look": "matrix", "step": 5, "name": "lm_head.weight", "what": "after"}
        lines = client.post("/api/ask", json=question | {"rows": rows}).text.splitlines()
        error = json.loads(lines[-1])["error"]
        assert "'rows'" in error
        assert "see the server's log" not in error
