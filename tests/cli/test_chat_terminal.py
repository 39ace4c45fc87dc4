"""``etude chat`` as users meet it: one answer, a pipe of questions, and a terminal with commands."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_cli import etude

from chat_models import make_chat_model, train_chat_model
from etude.cli import main
from etude.generate.language import load
from waiting import PATIENCE, wait_until

OPTIONS = ("--temperature", "0.9", "--max-new-tokens", "8", "--seed", "5")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_chat_model(tmp_path_factory.mktemp("chat") / "model", context=128)


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train four steps from the model: its checkpoints carry the template."""
    home = tmp_path_factory.mktemp("home")
    return train_chat_model(folder, home, home / "runs")


def _own_terminal() -> None:
    """Make standard input the terminal whose Ctrl-C reaches this process."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background job, as the tests may be, ignores it
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Terminal:
    """A process of ``etude chat`` in a terminal of its own."""

    def __init__(self, *arguments: object, cwd: Path) -> None:
        self._mine, theirs = pty.openpty()
        command = [sys.executable, "-m", "etude", "chat", *map(str, arguments)]
        self.process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=cwd,
            preexec_fn=_own_terminal,
            env={**os.environ, "TERM": "dumb"},
        )
        os.close(theirs)
        os.set_blocking(self._mine, False)
        self.text = ""

    def read(self) -> bool:
        """Read what it has printed; return whether it still runs."""
        try:
            self.text += os.read(self._mine, 1 << 16).decode().replace("\r\n", "\n")
        except BlockingIOError:
            pass
        except OSError:  # the other end is closed
            return False
        return True

    def wait(self, pattern: str) -> str:
        """Wait until a pattern is printed; return the text before and with it, which is forgotten."""
        wait_until(lambda: (self.read(), re.search(pattern, self.text))[1])
        found = re.search(pattern, self.text)
        assert found is not None
        seen, self.text = self.text[: found.end()], self.text[found.end() :]
        return seen

    def type(self, line: str) -> str:
        """Type a line; return what is printed up to the next prompt, without the echo."""
        os.write(self._mine, f"{line}\n".encode())
        return self.wait(r"\n> $").replace(f"{line}\n", "", 1).removesuffix("> ")

    def press(self, key: str) -> None:
        os.write(self._mine, key.encode())

    def interrupt(self, pattern: str) -> None:
        """Press Ctrl-C until a pattern is printed: a key pressed just before readline waits may go unnoticed."""
        pressed = 0.0

        def printed() -> bool:
            nonlocal pressed
            if time.monotonic() > pressed + 5:
                self.press("\x03")
                pressed = time.monotonic()
            self.read()
            return re.search(pattern, self.text) is not None

        wait_until(printed)
        self.wait(pattern)

    def end(self) -> int:
        """Wait until the process has ended; return its exit code."""
        wait_until(lambda: not self.read() or self.process.poll() is not None)
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)
        os.close(self._mine)


@pytest.fixture
def terminal(run: Path, tmp_path: Path) -> Iterator[Terminal]:
    opened = Terminal(run, *OPTIONS, cwd=tmp_path)
    yield opened
    opened.close()


def test_once_prints_the_answer_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    result = etude("chat", folder, "--once", "Hello?", *OPTIONS, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    answer = load(folder).chat("Hello?", seed=5, temperature=0.9, max_new_tokens=8)
    assert result.stdout == f"{answer}\n"
    assert result.stderr == "the answer was cut after 8 tokens: --max-new-tokens allows more\n"
    brief = etude("chat", folder, "--once", "Hello?", "--system", "Be brief.", *OPTIONS, cwd=tmp_path)
    assert brief.stdout != result.stdout


def test_each_line_of_a_pipe_is_a_question(folder: Path, tmp_path: Path) -> None:
    lines = ["Hello?", "", "/undo", "fox " * 300, "é"]
    piped = "\n".join(lines).encode() + b"\n\xff\n"
    result = etude("chat", folder, "--stop", "\\n", *OPTIONS, cwd=tmp_path, stdin=piped)
    language = load(folder)
    answers: list[dict[str, str]] = []
    for question in ("Hello?", "/undo", "é"):
        answers.append({"role": "user", "content": question})
        text = language.chat(answers, seed=5, temperature=0.9, max_new_tokens=8, stop="\n")
        answers.append({"role": "assistant", "content": text})
    assert result.stdout == "".join(f"{turn['content']}\n" for turn in answers[1::2])
    assert result.returncode == 2
    assert "line 4: the message takes" in result.stderr
    assert "line 6: it is not UTF-8 text" in result.stderr
    assert result.stderr.endswith("etude: 2 of 5 questions could not be answered: see above\n")
    empty = etude("chat", folder, cwd=tmp_path, stdin=b"\n")
    assert (empty.returncode, empty.stdout) == (2, "")
    assert "standard input has no question" in empty.stderr


def test_mistakes_get_one_line(
    run: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    base = make_chat_model(tmp_path / "base", None)
    for arguments, reason in (
        ((base, "--once", "a"), f"has no chat template.*etude generate {base} TEXT"),
        ((folder, "--once", " "), "the message is empty"),
        ((folder, "--once", "a", "--step", 3), "is one model without steps"),
        ((run, "--once", "a", "--step", 77), "has no checkpoint of step 77: choose one of 0"),
        ((folder, "--once", "a", "--top-p", 2), "top_p must be"),
        ((tmp_path / "none", "--once", "a"), "is not a run or a model folder"),
    ):
        monkeypatch.setattr(sys, "argv", ["etude", "chat", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main.run()
        printed = capsys.readouterr()
        assert (ended.value.code, printed.out) == (2, "")
        assert re.search(reason, printed.err), printed.err
        assert printed.err.count("\n") == 1


def test_a_step_answers_as_its_checkpoint(run: Path, tmp_path: Path) -> None:
    by_option = etude("chat", run, "--step", 0, "--once", "Hello?", *OPTIONS, cwd=tmp_path)
    by_name = etude("chat", f"{run}@0", "--once", "Hello?", *OPTIONS, cwd=tmp_path)
    newest = etude("chat", run, "--once", "Hello?", *OPTIONS, cwd=tmp_path)
    assert by_option.stdout == by_name.stdout != newest.stdout
    assert newest.returncode == 0
    again = etude("chat", f"{run}@0", "--step", 4, "--once", "Hello?", *OPTIONS, cwd=tmp_path)
    assert again.stdout == newest.stdout


def test_the_commands_of_a_terminal(terminal: Terminal, run: Path, tmp_path: Path) -> None:
    assert "tuned, step 4: type a question. /help lists the commands, Ctrl-D ends." in terminal.wait("> $")
    first = terminal.type("Hello?")
    assert first.startswith(load(run).chat("Hello?", seed=5, temperature=0.9, max_new_tokens=8))
    assert terminal.type("/retry") != first
    assert "removed: Hello?" in terminal.type("/undo")
    assert terminal.type("Hello?") == first
    assert "tuned, step 0" in terminal.type("/step 0")
    assert "has no checkpoint of step 9" in terminal.type("/step 9")
    assert "type /step with the number of a step" in terminal.type("/step x")
    assert "saved as talk.json" in terminal.type("/save talk.json")
    saved = json.loads((tmp_path / "talk.json").read_text())
    assert saved["messages"][0]["content"] == "Hello?"
    assert saved["model"].endswith("tuned@0")
    assert "tuned, step 4" in terminal.type("/step 4")
    second = terminal.type("And now?")
    assert "2 messages from talk.json, answered by" in terminal.type("/load talk.json")
    assert terminal.type("And now?") == second
    assert "there is no command /udno: did you mean /undo?" in terminal.type("/udno")
    assert "there is no command /xyz: /help lists the commands" in terminal.type("/xyz")
    assert "type /save with the name of a file" in terminal.type("/save")
    assert "there is no file" in terminal.type("/load none.json")
    assert "could not write" in terminal.type("/save none/talk.json")
    assert "/step N" in terminal.type("/help")
    assert "the system prompt is set" in terminal.type("/system Be brief.")
    assert terminal.type("/retry") != second
    assert "the system prompt is removed" in terminal.type("/system")
    assert "cut after 8 tokens" in terminal.type(" /undo is a word")
    assert terminal.type("").strip() == ""
    terminal.press("/quit\n")
    assert terminal.end() == 0


def test_ctrl_c_ends_the_answer_and_ctrl_d_the_program(tmp_path: Path) -> None:
    folder = make_chat_model(tmp_path / "long", context=9_000)
    terminal = Terminal(folder, "--max-new-tokens", 9_000, "--temperature", 0.9, cwd=tmp_path)
    try:
        terminal.wait("> $")
        terminal.interrupt("Ctrl-D or /quit ends")
        terminal.wait("> $")
        terminal.press("Hello?\n")
        terminal.wait(r"Hello\?\n")
        terminal.wait(r"\S")
        terminal.interrupt("interrupted\n> $")
        terminal.type("/save talk.json")
        question, answer = json.loads((tmp_path / "talk.json").read_text())["messages"]
        assert question["content"] == "Hello?"
        assert answer["content"]
        terminal.press("\x04")
        assert terminal.end() == 0
    finally:
        terminal.close()
