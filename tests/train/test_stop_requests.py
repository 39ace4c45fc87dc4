"""A training, and the page beside it, after its terminal is closed or it is killed."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from etude.config import Settings, to_toml, with_values
from etude.run import RunFolder
from etude.run.checkpoints import newest_good_checkpoint
from etude.train.stop_requests import STOPPED, stop_requests
from waiting import PATIENCE, wait_until

linux = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes by Linux's /proc")


def processes_of(words: str, file: str = "cmdline") -> list[int]:
    """Return the processes with ``words`` in their command line, or in another of Linux's files on a process."""
    pids = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if words.encode() in (folder / file).read_bytes() and int(folder.name) != os.getpid():
                pids.append(int(folder.name))
    return pids


@pytest.fixture
def endless(small_settings: Settings, tmp_path: Path) -> Path:
    """Write the settings file of a run that does not end by itself."""
    settings = with_values(
        small_settings,
        {"run.name": "endless", "train.steps": 500_000, "train.eval_every": 500_000, "train.log_every": 1,
         "train.sample_every": 500_000, "train.checkpoint_every": 500_000},
    )  # fmt: skip
    (tmp_path / "endless.toml").write_text(to_toml(settings))
    return tmp_path / "endless.toml"


@pytest.fixture
def run(endless: Path, tmp_path: Path) -> Iterator[RunFolder]:
    """Yield the future run folder; afterwards end all processes of the run."""
    yield RunFolder(tmp_path / "runs" / "endless")
    for process in {*processes_of(str(tmp_path)), *processes_of(f"ETUDE_TEST={tmp_path}", "environ")}:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def is_training(run: RunFolder) -> bool:
    return any(event["event"] == "step" and event["step"] >= 200 for event in run.metrics.read())


def in_a_terminal(*command: str) -> tuple[int, int]:
    """Start a command in a terminal of its own. Returns its process, and the other end of the terminal."""
    process, terminal = pty.fork()
    if process == 0:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup
        os.execv(command[0], command)
    return process, terminal


def read_until(terminal: int, ready: Callable[[], bool]) -> str:
    """Read the output of the terminal until ``ready()``. Without a reader, a full terminal would block the process."""
    os.set_blocking(terminal, False)
    shown = b""

    def look() -> bool:
        nonlocal shown
        with suppress(BlockingIOError):
            shown += os.read(terminal, 2**16)
        return ready()

    wait_until(look)
    return shown.decode(errors="replace")


@pytest.mark.slow
@linux
@pytest.mark.parametrize("plain", [False, True], ids=["panel", "lines"])
def test_a_closed_terminal_saves_the_run_and_ends_its_page(
    endless: Path, run: RunFolder, monkeypatch: pytest.MonkeyPatch, plain: bool
) -> None:
    monkeypatch.setenv("TERM", "dumb" if plain else "xterm")
    process, terminal = in_a_terminal(sys.executable, "-m", "etude", "train", "--config", str(endless))
    shown = read_until(terminal, lambda: is_training(run))
    assert "watch it learn" in shown
    assert processes_of(f"etude.serve\0{run.path.parent}")
    os.close(terminal)
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == STOPPED
    step = run.status()["step"]
    assert run.status()["state"] == "stopped"
    assert newest_good_checkpoint(run.checkpoints)[0].step == step
    assert [e["step"] for e in run.metrics.read() if e["event"] == "step"] == list(range(1, step + 1))
    wait_until(lambda: not processes_of(f"etude.serve\0{run.path.parent}"), 20)


@pytest.mark.slow
@linux
def test_a_killed_training_leaves_no_server(endless: Path, run: RunFolder, tmp_path: Path) -> None:
    """The page's server ends even if the page was in use, because its line about that has no reader any more."""
    with (tmp_path / "output").open("w") as output:
        training = subprocess.Popen(
            [sys.executable, "-c", "from etude.serve import studio_beside; studio_beside.STAY = 2\n"
             "from etude.cli.main import run; run()", "train", "--config", str(endless)],
            stdout=output,
            stderr=output,
        )  # fmt: skip
    wait_until(lambda: is_training(run))
    address = (tmp_path / "output").read_text().split("watch it learn: ")[1].split()[0]
    with urllib.request.urlopen(address, timeout=PATIENCE) as page:
        page.read()
    training.kill()
    training.wait()
    wait_until(lambda: not processes_of(f"etude.serve\0{run.path.parent}"), 30)
    assert "Traceback" not in (tmp_path / "output").read_text()


KILLED_WHILE_ENCODING = """
import os, pathlib, signal, sys
from concurrent.futures import ProcessPoolExecutor
from etude.data.tokens import shards
shards.encode_part.__kwdefaults__["serial_bytes"] = 0  # a small text is otherwise encoded by one process
original = ProcessPoolExecutor.submit
def submit(self, *arguments):
    original(self, os.getpid).result(60)  # a worker has begun
    os.kill(os.getpid(), signal.SIGKILL)
if __name__ == "__main__":
    ProcessPoolExecutor.submit = submit
    from etude.cli.main import run
    run()
"""


@pytest.mark.slow
@linux
def test_a_training_killed_while_it_prepares_leaves_no_process(
    small_settings: Settings, run: RunFolder, tmp_path: Path
) -> None:
    """Workers that encode text wait for their next task, and their parent cannot end them any more."""
    (tmp_path / "two.toml").write_text(to_toml(with_values(small_settings, {"data.workers": 2})))
    (tmp_path / "killed.py").write_text(KILLED_WHILE_ENCODING)
    marked = os.environ | {"ETUDE_TEST": str(tmp_path)}
    command = [sys.executable, str(tmp_path / "killed.py"), "train", "--config", str(tmp_path / "two.toml")]
    training = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=marked)
    assert training.wait(120) == -signal.SIGKILL
    wait_until(lambda: not processes_of(f"ETUDE_TEST={tmp_path}", "environ"), 30)


@pytest.mark.slow
@linux
def test_under_nohup_a_closed_terminal_changes_nothing(endless: Path, run: RunFolder, tmp_path: Path) -> None:
    command = f"trap '' HUP; exec {sys.executable} -m etude train --config {endless} --no-studio >{tmp_path}/out 2>&1"
    process, terminal = in_a_terminal("/bin/sh", "-c", command)
    read_until(terminal, lambda: is_training(run))
    os.close(terminal)
    before = len(run.metrics.read())
    wait_until(lambda: len(run.metrics.read()) > before + 200)
    assert run.status()["state"] == "running"
    os.kill(process, signal.SIGTERM)
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == STOPPED


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
def test_sighup_requests_a_stop_and_does_not_end_the_work_after_it() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup
    try:
        with stop_requests() as should_stop:
            assert not should_stop()
            os.kill(os.getpid(), signal.SIGHUP)
            assert should_stop()
        os.kill(os.getpid(), signal.SIGHUP)  # the shell's, after the kernel's
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
def test_an_ignored_sighup_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_requests() as should_stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not should_stop()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_orphan_stops() -> None:
    orphaned = False
    with stop_requests(orphaned=lambda: orphaned) as should_stop:
        assert not should_stop()
        orphaned = True
        assert should_stop()
