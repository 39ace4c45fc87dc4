"""The ways in which the fault programme disturbs a run.

    python kinds.py FOLDER KIND RUN COUNT SEED

tries one of them and prints the result as JSON. It needs a fresh process: one that has computed with several threads
must not be forked, because its children would wait for threads that they do not have.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from etude.files import STAGING_PREFIX
from etude.run import RunFolder
from etude.run.checkpoints import list_checkpoints, step_of
from etude.train.stop_requests import STOPPED
from operations import crash, damage_a_file, refuse_an_operation
from programme import (
    KILLED,
    Child,
    Kind,
    Programme,
    Result,
    address_space_of,
    differs,
    ended,
    last_step_logged,
    newest_step,
)


def kill(programme: Programme, path: Path, name: str, result: Result) -> Path:
    """Kill the run (SIGKILL) at a random moment, and up to three times more while it continues."""
    for _ in range(programme.dice.randint(1, 4)):
        child = programme.begin(path, name)
        time.sleep(programme.dice.uniform(0, programme.seconds[name]))
        os.kill(child.pid, signal.SIGKILL)
        code, message = ended(child)
        if code != KILLED:  # it had ended before the signal
            if code != 0 and "is finished" not in message:
                result.problems.append(f"{name}: {message}")
            break
        if (path / "run.toml").exists():
            result.count(path)
        else:  # killed before the run folder existed
            result.injected += 1
    return path


def kill_during_a_checkpoint(programme: Programme, path: Path, name: str, result: Result) -> Path:
    """Kill the run while the folder of a checkpoint is half-written, which its name shows."""
    child = programme.begin(path, name)
    wanted, seen = programme.dice.randint(1, 12), set()
    while (code := child.poll()) is None and len(seen) < wanted:
        seen |= {entry.name for entry in _entries(path / "checkpoints") if STAGING_PREFIX in entry.name}
    if code is None:
        time.sleep(programme.dice.uniform(0, 0.004))
        os.kill(child.pid, signal.SIGKILL)
        ended(child)
        result.count(path)
    return path


def cut_the_power(programme: Programme, path: Path, name: str, result: Result) -> Path:
    """Kill the run, then truncate the last written files at any byte: the log and the newest checkpoint's files."""
    child = programme.begin(path, name)
    while child.poll() is None and len(list_checkpoints(path / "checkpoints")) < 3:
        time.sleep(0.002)
    time.sleep(programme.dice.uniform(0, programme.seconds[name] / 2))
    if child.poll() is None:
        os.kill(child.pid, signal.SIGKILL)
    ended(child)
    newest = list_checkpoints(path / "checkpoints")[-1]
    # The log was synced before the newest checkpoint was begun, up to the line of that checkpoint.
    synced = _bytes_up_to(path / "metrics.jsonl", step_of(newest))
    _cut(path / "metrics.jsonl", programme.dice, at_least=synced)
    victims = [file for file in (path / "status.json", *newest.iterdir()) if file.is_file()]
    for victim in programme.dice.sample(victims, programme.dice.randint(0, 3)):
        _cut(victim, programme.dice)
    result.count(path)
    return path


def request_stop(programme: Programme, path: Path, name: str, result: Result) -> Path:
    """Send SIGINT, SIGTERM or SIGUSR1: the run finishes its step, saves, and exits with the code of a stopped run."""
    child = programme.begin(path, name)
    _wait_for(path / "metrics.jsonl", child)
    time.sleep(programme.dice.uniform(0, programme.seconds[name] / 2))
    number = programme.dice.choice((signal.SIGINT, signal.SIGTERM, signal.SIGUSR1))
    os.kill(child.pid, number)
    code, message = ended(child)
    if RunFolder(path).status().get("state") != "finished":  # otherwise the signal came too late
        result.count(path)
        if code != STOPPED or last_step_logged(path) != newest_step(path):
            result.problems.append(f"{name}: {number.name} ended it with {code}, not saved: {message}")
    return path


def fill_the_disk(programme: Programme, path: Path, name: str, result: Result) -> Path | None:
    """Run on a small file system in memory, or with a limit on the size of files where mounting is not allowed."""
    whole_bytes = sum(file.stat().st_size for file in programme.whole(name).rglob("*") if file.is_file())
    with small_file_system(
        programme.folder / "small", int(whole_bytes * programme.dice.uniform(0.1, 0.9))
    ) as small:
        place = path if small is None else small / path.name
        limit = max(4096, int(20_000 * programme.dice.random())) if small is None else None
        with _accepting_any_disk():
            code, message = ended(programme.begin(place, name, file_size=limit))
        if code == 0:
            return None  # there was room for the whole run
        if code != 1 or "free" not in message:
            result.problems.append(f"{name}: {code} {message}")
        if not (place / "run.toml").exists():  # it failed before the run folder was made
            result.injected += 1
            return path
        if small is not None:
            shutil.copytree(place, path)
    result.count(path)
    return path


def make_read_only(programme: Programme, path: Path, name: str, result: Result) -> Path | None:
    """Resume a killed run on a file system that has become read-only, as after an error of the disk."""
    with small_file_system(programme.folder / "small", 50_000_000) as small:
        if small is None:
            result.impossible = "mounting is not allowed on this machine"
            return None
        place = small / path.name
        child = programme.begin(place, name)
        while child.poll() is None and not list_checkpoints(place / "checkpoints"):
            time.sleep(0.002)
        time.sleep(programme.dice.uniform(0, programme.seconds[name] / 3))
        if child.poll() is not None:
            return None
        os.kill(child.pid, signal.SIGKILL)
        ended(child)
        subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
        code, message = ended(programme.begin(place, name))
        if "is finished" in message:  # it was killed after its last checkpoint
            return None
        if code != 1 or "can be written" not in message:
            result.problems.append(f"{name}: {code} {message}")
        shutil.copytree(place, path)
    result.count(path)
    return path


SPARED = ("summary",)
"""Events that a run omits where memory is short."""


def take_the_memory(programme: Programme, path: Path, name: str, result: Result) -> Path | None:
    """Limit the address space, from the start or from a random moment on.

    The run must end with a one-line error, or continue with the same result.
    """
    if programme.dice.random() < 0.3:
        child = programme.begin(path, name, address_space=programme.dice.randint(1, 40) * 2**20)
    else:
        child = programme.begin(path, name)
        # A run allocates most of its memory in its first steps, and keeps it. Set the limit only once its threads
        # exist: Thread.start() blocks forever if the new thread cannot allocate.
        _wait_for(path / "metrics.jsonl", child)
        time.sleep(programme.dice.uniform(0, programme.seconds[name] / 16))
        with suppress(OSError, ValueError):  # the process has ended
            limit = address_space_of(child.pid) + programme.dice.randint(0, 4) * 2**20
            resource.prlimit(child.pid, resource.RLIMIT_AS, (limit, limit))
    code, message = ended(child)
    if code == 0:
        if differs(path, programme.whole(name), SPARED) is not None and not _went_in_pieces(path):
            result.problems.append(f"{name}: little memory changed the result")
        return None
    began = (path / "run.toml").exists()
    if code != 1 or ("DEFECT" in message and (began or "MemoryError" not in message)):
        result.problems.append(f"{name}: {code} {message}")
    if began:
        result.count(path)
    else:
        result.injected += 1
    return path


KINDS = {
    "kills": Kind("killed (SIGKILL) at a random moment", kill),
    "kills_during_a_checkpoint": Kind(
        "killed while a checkpoint was being written", kill_during_a_checkpoint
    ),
    "power_cuts": Kind("power cut: killed, and files cut off at an arbitrary byte", cut_the_power),
    "signals": Kind("stop requested (SIGINT, SIGTERM, SIGUSR1)", request_stop, without=["checkpoint"]),
    "full_disk": Kind("disk full", fill_the_disk),
    "read_only": Kind("file system turned read-only", make_read_only),
    "refused_operations": Kind(
        "one file operation refused (EIO, ENOSPC, EACCES)", refuse_an_operation, runs=("short",)
    ),
    "crashes": Kind("crash: what was not synced is lost in part", crash, runs=("short",)),
    "damaged_files": Kind("a file of the run damaged or removed", damage_a_file, runs=("short",)),
    "out_of_memory": Kind("out of memory", take_the_memory, without=SPARED),
}


@contextmanager
def small_file_system(at: Path, size: int) -> Iterator[Path | None]:
    """Mount a file system of `size` bytes while the block runs; yields None where mounting is not allowed."""
    at.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(at)]
    mounted = subprocess.run(command, check=False, capture_output=True).returncode == 0
    try:
        yield at if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(at)], check=True)


@contextmanager
def _accepting_any_disk() -> Iterator[None]:
    """Disable the check for disk space at the start of a run, so that the run fails in the middle instead."""
    usage = shutil.disk_usage
    shutil.disk_usage = lambda path: usage("/")  # type: ignore[assignment]
    try:
        yield
    finally:
        shutil.disk_usage = usage  # type: ignore[assignment]


def _wait_for(file: Path, child: Child) -> None:
    """Wait until the file exists, or the process has ended."""
    while not file.exists() and child.poll() is None:
        time.sleep(0.002)


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _cut(file: Path, dice: random.Random, at_least: int = 0) -> None:
    if file.exists():
        size = file.stat().st_size
        os.truncate(file, dice.randint(min(at_least, size), size))


def _bytes_up_to(log: Path, step: int) -> int:
    """Return the bytes of the lines of `log` that were written before the checkpoint of `step` was begun."""
    total = 0
    for line in log.read_bytes().splitlines(keepends=True):
        try:
            if json.loads(line)["step"] > step:
                break
        except ValueError:
            break
        total += len(line)
    return total


def _went_in_pieces(path: Path) -> bool:
    return any(event["event"] == "micro_batch" for event in RunFolder(path).metrics.read())


def tried_out(folder: Path, kind: str, name: str, count: int, seed: int) -> Result:
    """Inject `count` faults of a kind into the run `name`, in a process of its own, and return the result."""
    command = [sys.executable, __file__, str(folder), kind, name, str(count), str(seed)]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        raise RuntimeError(ended.stderr[-3000:])
    return Result(**json.loads(ended.stdout.splitlines()[-1]))


if __name__ == "__main__":
    where, what, which, how_many, dice = sys.argv[1:]
    print(json.dumps(asdict(Programme(Path(where), int(dice)).try_out(KINDS[what], int(how_many), which))))
