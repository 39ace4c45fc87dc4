"""The fault programme: short real runs, disturbed in every way, and compared with ones that were left alone.

Each trial is a process of its own, forked from this one, which has everything loaded, so that hundreds take minutes. It
does what `etude train` and `etude train --resume` do. What a trial is held to is always the same: nothing to repair by
hand, the weights, the optimizer's state, the record and the samples of the end bit for bit those of the undisturbed
run, and no step told twice.

Used by tests/faults/test_faults.py for a few of each kind, and by bench/faults.py for many.
"""

from __future__ import annotations

import io
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from etude.config import DeviceSettings, load_settings, with_values
from etude.device import choose_device
from etude.errors import EtudeError
from etude.run import STAGING_PREFIX, RunFolder
from etude.train.checkpoint import list_checkpoints, newest_good_checkpoint
from etude.workflow import jobs
from etude.workflow.signals import STOPPED

STEPS = 48
KILLED, PATIENCE = 137, 120.0
"""What the shell calls the end by SIGKILL; seconds after which a trial that does not end has failed."""
COMMON = {
    "model.hidden_size": 16,
    "model.intermediate_size": 32,
    "model.num_hidden_layers": 2,
    "model.num_attention_heads": 2,
    "tokenizer.vocab_size": 300,
    "train.steps": STEPS,
    "train.context": 16,
    "train.batch_rows": 4,
    "train.micro_batch_rows": 4,
    "train.log_every": 3,
    "train.eval_every": 8,
    "train.eval_tokens": 256,
    "train.sample_every": 16,
    "train.checkpoint_every": 4,
    "train.keep_checkpoints": 2,
    "ladder.max_order": 2,
    "data.workers": 1,
    "data.min_chars": 1,
    "device.kind": "cpu",
    "device.threads": 1,
    "device.compile": False,
}
RUNS: dict[str, dict[str, Any]] = {
    "muon": {},
    "adamw": {"train.optimizer": "adamw", "train.schedule": "wsd"},
    "dropout": {"train.dropout": 0.2, "train.micro_batch_rows": 2},
    "qwen3, documents apart": {"model.preset": "qwen3", "data.cross_document_attention": False},
    "gpt2": {"model.preset": "gpt2", "train.activation_checkpointing": True},
    "mlp": {"model.preset": "mlp", "model.num_hidden_layers": None, "model.num_attention_heads": None},
}
"""The runs that are disturbed; None leaves a setting of the common ones out."""
CLOCK = ("wall_time", "tokens_per_second")
"""What no two runs have alike."""


@dataclass
class Result:
    """What became of the faults of one kind."""

    kind: str
    injected: int = 0
    recovered: int = 0
    bitwise_equal: int = 0
    steps_lost: list[int] = field(default_factory=list)  # made, and made again
    problems: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether every run ended as the undisturbed one."""
        return not self.problems and self.injected > 0 and self.recovered == self.bitwise_equal > 0


class Programme:
    """A folder with the text, the undisturbed runs, and those that are disturbed."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.folder = folder
        self.dice = random.Random(seed)
        os.environ["ETUDE_CACHE"] = str(folder / "cache")
        choose_device(
            DeviceSettings(kind="cpu", threads=1)
        )  # which loads the compiler: here, not in every trial
        text = folder / "text.txt"
        text.write_text(_sentences(random.Random(1)))
        here = {"data.sources": (str(text),), "run.folder": str(folder / "runs")}
        self.settings = {
            name: load_settings(
                None, [], {key: value for key, value in (COMMON | own | here).items() if value is not None}
            )
            for name, own in RUNS.items()
        }
        self.undisturbed: dict[str, Path] = {}
        self.seconds: dict[str, float] = {}

    def whole(self, name: str) -> Path:
        """The run that nothing happened to."""
        if name not in self.undisturbed:
            for attempt in ("first, which prepares the text", "measured"):
                begin = time.monotonic()
                path = self.fresh(name, f"whole-{len(self.undisturbed)}-{attempt[:5]}")
                code, said = ended(self.begin(path, name))
                assert code == 0, said
                self.seconds[name] = time.monotonic() - begin
            self.undisturbed[name] = path
        return self.undisturbed[name]

    def fresh(self, name: str, folder_name: str, below: Path | None = None) -> Path:
        """Where a run of this kind will be."""
        return (below or self.folder / "runs") / folder_name

    def begin(self, path: Path, name: str, **limits: Any) -> Child:
        """Start the run `name` at `path`, or go on with what is there."""
        if (path / "run.toml").exists():
            return Child(lambda: jobs.resume(path, _quiet()).reason, self.folder / "said", **limits)
        settings = with_values(self.settings[name], {"run.folder": str(path.parent), "run.name": path.name})
        return Child(lambda: jobs.grow(settings, _quiet()).reason, self.folder / "said", **limits)

    def finish(self, path: Path, name: str, result: Result, *, without: Sequence[str] = ()) -> None:
        """Go on to the end, undisturbed, and compare but for events `without`; what is wrong is added to the result."""
        code, said = ended(self.begin(path, name))
        if code != 0 and "is finished at step" not in said:
            result.problems.append(f"{name}: it did not go on ({code}): {said}")
            return
        result.recovered += 1
        difference = differs(path, self.whole(name), without)
        if difference is None:
            result.bitwise_equal += 1
        else:
            result.problems.append(f"{name}: {difference}")


class Child:
    """A process that trains, forked from this one."""

    def __init__(
        self,
        do: Callable[[], str],
        log: Path,
        *,
        address_space: int | None = None,
        file_size: int | None = None,
    ) -> None:
        self.log = log
        self._code: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                if file_size is not None:
                    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                    resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
                if address_space is not None:
                    limit = _address_space_now() + address_space
                    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
                code = STOPPED if do() == "stopped" else 0
            except EtudeError as error:
                code = error.exit_code
                with suppress(OSError):
                    self.log.write_text(str(error))
            except BaseException as error:
                with suppress(OSError):
                    self.log.write_text(f"DEFECT {type(error).__name__}: {error}")
            finally:
                os._exit(code)

    def poll(self) -> int | None:
        """The exit code, once it has one."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = None if pid == 0 else _code(status)
        return self._code


def ended(child: Child) -> tuple[int, str]:
    """Wait for the end; (exit code, what it said)."""
    deadline = time.monotonic() + PATIENCE
    while (code := child.poll()) is None:
        if time.monotonic() > deadline:
            os.kill(child.pid, signal.SIGKILL)
            return -1, f"no end after {PATIENCE:.0f} s"
        time.sleep(0.01)
    said = child.log.read_text() if child.log.exists() else ""
    child.log.unlink(missing_ok=True)
    return code, said


def tries(result: Result, count: int) -> Iterator[int]:
    """Until there were `count` faults; some come too late, but not for ever."""
    for attempt in range(10 * count):
        if result.injected >= count:
            return
        yield attempt
    result.problems.append(f"only {result.injected} of {count} faults came in time")


def kills(programme: Programme, count: int, name: str) -> Result:
    """SIGKILL at random moments, again and again also while it goes on, until there have been `count` of them."""
    result = Result("killed (SIGKILL) at a random moment")
    programme.whole(name)
    for _ in tries(result, count):
        path = programme.fresh(name, f"killed-{os.getpid()}-{time.monotonic_ns()}")
        for _ in range(programme.dice.randint(1, 4)):
            child = programme.begin(path, name)
            time.sleep(programme.dice.uniform(0, programme.seconds[name]))
            os.kill(child.pid, signal.SIGKILL)
            code, said = ended(child)
            if code != KILLED:  # it was faster
                if code != 0 and "is finished" not in said:
                    result.problems.append(f"{name}: {said}")
                break
            result.injected += 1
            if not (path / "run.toml").exists():  # killed before there was a run: nothing is left of it
                continue
            result.steps_lost.append(last_step_told(path) - newest_step(path))
        programme.finish(path, name, result)
        _remove(path)
    return result


def kills_during_a_checkpoint(programme: Programme, count: int, name: str) -> Result:
    """SIGKILL while the folder of a checkpoint is half-written, seen by its name."""
    result = Result("killed while a checkpoint was being written")
    programme.whole(name)
    for _ in tries(result, count):
        path = programme.fresh(name, f"checkpoint-{time.monotonic_ns()}")
        child = programme.begin(path, name)
        wanted, seen = programme.dice.randint(1, 12), set()
        while (code := child.poll()) is None and len(seen) < wanted:
            seen |= {entry.name for entry in _entries(path / "checkpoints") if STAGING_PREFIX in entry.name}
        if code is None:
            time.sleep(programme.dice.uniform(0, 0.004))
            os.kill(child.pid, signal.SIGKILL)
            ended(child)
            result.injected += 1
            result.steps_lost.append(last_step_told(path) - newest_step(path))
        programme.finish(path, name, result)
        _remove(path)
    return result


def power_cuts(programme: Programme, count: int, name: str) -> Result:
    """SIGKILL, and then what was written last is cut off at any byte: the record and the newest checkpoint's files."""
    result = Result("power cut: killed, and files cut off at an arbitrary byte")
    programme.whole(name)
    for _ in tries(result, count):
        path = programme.fresh(name, f"cut-{time.monotonic_ns()}")
        child = programme.begin(path, name)
        while child.poll() is None and len(list_checkpoints(path / "checkpoints")) < 3:
            time.sleep(0.002)
        time.sleep(programme.dice.uniform(0, programme.seconds[name] / 2))
        if child.poll() is None:
            os.kill(child.pid, signal.SIGKILL)
        ended(child)
        saved = list_checkpoints(path / "checkpoints")
        # The record was flushed to the disk before the newest checkpoint was begun, up to the line that tells of it.
        victims = [file for file in (path / "status.json", *saved[-1].iterdir()) if file.is_file()]
        if len(saved) < 2:
            victims = [path / "status.json"]
        synced = _bytes_up_to(path / "metrics.jsonl", int(saved[-1].name[5:]))
        _cut(path / "metrics.jsonl", programme.dice, at_least=synced)
        for victim in programme.dice.sample(victims, programme.dice.randint(0, min(3, len(victims)))):
            _cut(victim, programme.dice)
        result.injected += 1
        result.steps_lost.append(last_step_told(path) - newest_step(path))
        programme.finish(path, name, result)
        _remove(path)
    return result


def signals(programme: Programme, count: int, name: str) -> Result:
    """SIGINT, SIGTERM and SIGUSR1: the step is finished, the run saved, and the exit code says that it goes on."""
    result = Result("asked to stop (SIGINT, SIGTERM, SIGUSR1)")
    programme.whole(name)
    for _ in tries(result, count):
        path = programme.fresh(name, f"asked-{time.monotonic_ns()}")
        child = programme.begin(path, name)
        deadline = time.monotonic() + PATIENCE
        while not (path / "metrics.jsonl").exists() and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(programme.dice.uniform(0, programme.seconds[name] / 2))
        asked = programme.dice.choice((signal.SIGINT, signal.SIGTERM, signal.SIGUSR1))
        os.kill(child.pid, asked)
        code, said = ended(child)
        if code == STOPPED:
            result.injected += 1
            lost = last_step_told(path) - newest_step(path)
            result.steps_lost.append(lost)
            if lost:
                result.problems.append(f"{name}: {lost} steps were not saved when it was asked to stop")
        elif code != 0:  # finished before it was asked
            result.problems.append(f"{name}: {signal.Signals(asked).name} ended it with {code}: {said}")
            result.injected += 1
        programme.finish(path, name, result, without=["checkpoint"])  # it made one more
        _remove(path)
    return result


def full_disk(programme: Programme, count: int, name: str) -> Result:
    """A file system that is full (a small one in memory where that may be mounted, else files that may not grow)."""
    result = Result("disk full")
    programme.whole(name)
    whole_bytes = sum(file.stat().st_size for file in programme.whole(name).rglob("*") if file.is_file())
    for _ in tries(result, count):
        room = int(whole_bytes * programme.dice.uniform(0.1, 0.9))
        with small_file_system(programme.folder / "small", room) as mounted:
            below = programme.folder / ("small" if mounted else "runs")
            path = programme.fresh(name, f"full-{time.monotonic_ns()}", below)
            limit = None if mounted else max(4096, int(20_000 * programme.dice.random()))
            with _accepting_any_disk():
                code, said = ended(programme.begin(path, name, file_size=limit))
            if code == 0:
                continue  # there was room for all of it
            result.injected += 1
            if code != 1 or "free" not in said:
                result.problems.append(f"{name}: {code} {said}")
            if not (path / "run.toml").exists():
                result.recovered += 1  # nothing was begun, nothing is left
                result.bitwise_equal += 1
                continue
            kept = programme.folder / "runs" / path.name
            if mounted:
                shutil.copytree(path, kept)
            result.steps_lost.append(last_step_told(kept) - newest_step(kept))
        programme.finish(kept, name, result)
        _remove(kept)
    return result


def read_only(programme: Programme, count: int, name: str) -> Result:
    """A run that was killed is to go on where the file system has become read-only, as after an error of the disk."""
    result = Result("file system turned read-only")
    programme.whole(name)
    small = programme.folder / "small"
    for _ in tries(result, count):
        with small_file_system(small, 50_000_000) as mounted:
            if not mounted:
                result.kind += " (not tried: mounting is not allowed here)"
                return result
            path = programme.fresh(name, f"ro-{time.monotonic_ns()}", small)
            child = programme.begin(path, name)
            while child.poll() is None and not list_checkpoints(path / "checkpoints"):
                time.sleep(0.002)
            time.sleep(programme.dice.uniform(0, programme.seconds[name] / 3))
            if child.poll() is not None:
                continue
            os.kill(child.pid, signal.SIGKILL)
            ended(child)
            subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
            code, said = ended(programme.begin(path, name))
            result.injected += 1
            if code != 1 or "can be written" not in said:
                result.problems.append(f"{name}: {code} {said}")
            kept = programme.folder / "runs" / path.name
            shutil.copytree(path, kept)
            result.steps_lost.append(last_step_told(kept) - newest_step(kept))
        programme.finish(kept, name, result)
        _remove(kept)
    return result


def out_of_memory(programme: Programme, count: int, name: str) -> Result:
    """An address space that is too small, more or less: it ends with one line, or goes on, and never with less."""
    result = Result("out of memory")
    programme.whole(name)
    for _ in tries(result, count):
        path = programme.fresh(name, f"memory-{time.monotonic_ns()}")
        code, said = ended(programme.begin(path, name, address_space=programme.dice.randint(1, 40) * 2**20))
        if code == 0:
            if differs(path, programme.whole(name)) is not None and not _went_in_pieces(path):
                result.problems.append(f"{name}: little memory changed the result")
            _remove(path)
            continue
        result.injected += 1
        if "DEFECT" in said and "emory" not in said:
            result.problems.append(f"{name}: {code} {said}")
        if (path / "run.toml").exists():
            result.steps_lost.append(last_step_told(path) - newest_step(path))
        programme.finish(path, name, result)
        _remove(path)
    return result


KINDS: dict[str, Callable[[Programme, int, str], Result]] = {
    "kills": kills,
    "kills_during_a_checkpoint": kills_during_a_checkpoint,
    "power_cuts": power_cuts,
    "signals": signals,
    "full_disk": full_disk,
    "read_only": read_only,
    "out_of_memory": out_of_memory,
}


def differs(path: Path, whole: Path, without: Sequence[str] = ()) -> str | None:
    """What is not bit for bit the same in two finished runs; None when nothing is."""
    here, there = RunFolder(path), RunFolder(whole)
    for log in ("metrics", "samples"):
        told, expected = (comparable(getattr(run, log).read(), without) for run in (here, there))
        steps = [event["step"] for event in told if event["event"] == "step"]
        if len(set(steps)) != len(steps):
            return f"a step stands twice in {log}"
        if told != expected:
            return f"{log} says something else"
    mine, theirs = (newest_good_checkpoint(run.checkpoints)[0] for run in (here, there))
    if mine.step != theirs.step:
        return f"it ended at step {mine.step}, not {theirs.step}"
    for file in sorted(theirs.folder.iterdir()):
        if file.suffix == ".safetensors" and file.read_bytes() != (mine.folder / file.name).read_bytes():
            return f"{file.name} is not the same"
    if leftovers := [entry for entry in path.rglob(f"{STAGING_PREFIX}*") if entry.exists()]:
        return f"{leftovers[0].name} was left behind"
    return None


def comparable(events: list[dict[str, Any]], without: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Events without what a clock says, without the ends of sittings, and those of the names `without`."""
    plain = [{key: value for key, value in event.items() if key not in CLOCK} for event in events]
    return sorted(
        (event for event in plain if event["event"] not in ("end", *without)),
        key=lambda event: (event["step"], json.dumps(event, sort_keys=True)),
    )


def last_step_told(path: Path) -> int:
    """The last step that the record of a run tells of."""
    return max((event["step"] for event in RunFolder(path).metrics.read()), default=0)


def newest_step(path: Path) -> int:
    """The step that a run goes on from; 0 where it begins again."""
    try:
        return newest_good_checkpoint(path / "checkpoints")[0].step
    except EtudeError:
        return 0


@contextmanager
def small_file_system(at: Path, size: int) -> Iterator[bool]:
    """One of `size` bytes, mounted; False where that is not allowed."""
    at.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(at)]
    mounted = subprocess.run(command, check=False, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(at)], check=True)


@contextmanager
def _accepting_any_disk() -> Iterator[None]:
    """The question for room is asked ahead and would refuse the run: here it is to go wrong in the middle."""
    usage = shutil.disk_usage
    shutil.disk_usage = lambda path: usage("/")  # type: ignore[assignment]
    try:
        yield
    finally:
        shutil.disk_usage = usage  # type: ignore[assignment]


def _quiet() -> Console:
    return Console(file=io.StringIO())


def _code(status: int) -> int:
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


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
    """Bytes of the lines of `log` that were there when the checkpoint of `step` was begun."""
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


def _address_space_now() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)


def _sentences(dice: random.Random) -> str:
    names, places = (
        ["Ada", "Ben", "Cleo", "Dan", "Eve", "Finn"],
        ["garden", "harbour", "market", "forest", "mill"],
    )
    things = ["lamp", "boat", "map", "key", "bell", "apple"]
    lines = (
        f"{dice.choice(names)} took the {dice.choice(things)} to the {dice.choice(places)}."
        for _ in range(3000)
    )
    return "\n\n".join(" ".join(group) for group in zip(*[lines] * 6, strict=False))
