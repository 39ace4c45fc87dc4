"""The fault programme: disturb short real runs in every way, and compare them with undisturbed ones.

Each trial is a process forked from this one, which has everything loaded, so that hundreds take minutes. It does what
`etude train` and `etude train --resume` do. The requirements are always the same: nothing needs manual repair; the
final weights, optimizer state, record and samples equal those of the undisturbed run, bit for bit; and no step is
logged twice.

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
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from disk import Disk
from etude.config import DeviceSettings, load_settings, with_values
from etude.device import choose_device
from etude.errors import EtudeError
from etude.files import STAGING_PREFIX
from etude.run import RunFolder
from etude.run.checkpoints import newest_good_checkpoint
from etude.train.stop_requests import STOPPED
from etude.workflow import jobs

STEPS = 48
KILLED, PATIENCE = 137, 600.0
"""The shell's exit code after SIGKILL; seconds after which a trial that does not end has failed."""
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
    "train.checksum_every": 5,
    "train.summary_every": 7,
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
"""The runs that are disturbed, as changes to the common settings. None removes a setting."""
SHORT: dict[str, dict[str, Any]] = {
    "short": {"train.steps": 10, "train.eval_every": 5, "train.sample_every": 5, "train.checksum_every": 4}
}
"""A run so short that it can be repeated for each of its file operations."""
CLOCK = ("wall_time", "tokens_per_second", "seconds")
"""Keys of times, which differ between any two runs."""


@dataclass
class Result:
    """The outcome of the faults of one kind."""

    kind: str
    injected: int = 0
    recovered: int = 0
    bitwise_equal: int = 0
    steps_lost: list[int] = field(default_factory=list)  # by each fault: steps that had to be repeated
    problems: list[str] = field(default_factory=list)
    impossible: str = ""  # why this kind cannot be tried on this machine

    def count(self, path: Path) -> None:
        """Count a fault in the run at `path`, and the steps that it lost."""
        self.injected += 1
        self.steps_lost.append(last_step_logged(path) - newest_step(path))

    @property
    def is_clean(self) -> bool:
        """Return whether every run ended like the undisturbed one."""
        return not self.problems and self.injected > 0 and self.recovered == self.bitwise_equal > 0


@dataclass(frozen=True)
class Kind:
    """A way to disturb a run."""

    title: str
    disturb: Callable[[Programme, Path, str, Result], Path | None]
    """Starts the named run at a path and disturbs it. Returns the path to continue; None: nothing to compare."""
    without: Sequence[str] = ()
    """Events that the disturbed run may have in addition, which are not compared."""
    runs: Sequence[str] = tuple(RUNS)
    """The runs that are disturbed in this way."""


class Programme:
    """A folder with the text, the undisturbed runs and the disturbed ones."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.folder = folder
        self.dice = random.Random(seed)
        os.environ["ETUDE_CACHE"] = str(folder / "cache")
        choose_device(
            DeviceSettings(kind="cpu", threads=1)
        )  # loads the compiler once, instead of in every trial
        text = folder / "text.txt"
        text.write_text(_sentences(random.Random(1)))
        paths = {"data.sources": (str(text),), "run.folder": str(folder / "runs")}
        self.settings = {
            name: load_settings(
                None, [], {key: value for key, value in (COMMON | own | paths).items() if value is not None}
            )
            for name, own in (RUNS | SHORT).items()
        }
        self.undisturbed: dict[str, Path] = {}
        self.seconds: dict[str, float] = {}
        self.memory: dict[str, Any] = {}  # what a kind of fault remembers between its trials

    def whole(self, name: str) -> Path:
        """Return the undisturbed run."""
        if name not in self.undisturbed:
            for attempt in ("first, which prepares the text", "measured"):
                begin = time.monotonic()
                path = self.folder / "runs" / f"whole-{len(self.undisturbed)}-{attempt[:5]}"
                code, message = ended(self.begin(path, name))
                assert code == 0, message
                self.seconds[name] = time.monotonic() - begin
            self.undisturbed[name] = path
        return self.undisturbed[name]

    def begin(
        self,
        path: Path,
        name: str,
        disk: Disk | None = None,
        after: Callable[[], None] | None = None,
        **limits: Any,
    ) -> Child:
        """Start the run `name` at `path`, or resume it there. All its file operations pass through `disk`.

        `after` is called in the child if the run ends without an error.
        """
        console, printed = _quiet(), self.folder / "printed"
        printed.unlink(missing_ok=True)

        def do() -> str:
            with nullcontext() if disk is None else disk.watched():
                if (path / "run.toml").exists():
                    outcome = jobs.resume(path, console)
                else:
                    place = {"run.folder": str(path.parent), "run.name": path.name}
                    outcome = jobs.grow(with_values(self.settings[name], place), console)
            assert isinstance(console.file, io.StringIO)
            printed.write_text(console.file.getvalue())
            if after is not None:
                after()
            return outcome.reason

        return Child(do, self.folder / "error", **limits)

    def printed(self) -> str:
        """Return what the last child printed, if it ended without an error."""
        file = self.folder / "printed"
        return file.read_text() if file.exists() else ""

    def try_out(self, kind: Kind, count: int, name: str) -> Result:
        """Disturb `count` runs of `name` in one way, continue each to its end, and compare."""
        result = Result(kind.title)
        self.whole(name)
        for number in range(
            10 * count
        ):  # some faults come after the end of the run; bound the number of trials
            if result.injected >= count or result.impossible:
                return result
            path = kind.disturb(
                self, self.folder / "runs" / f"{kind.disturb.__name__}-{number}", name, result
            )
            if path is not None:
                self.finish(path, name, result, without=kind.without)
                shutil.rmtree(path, ignore_errors=True)
        result.problems.append(f"only {result.injected} of {count} faults came in time")
        return result

    def finish(self, path: Path, name: str, result: Result, *, without: Sequence[str] = ()) -> None:
        """Continue to the end, undisturbed, and compare except for events `without`. Add problems to the result."""
        code, message = ended(self.begin(path, name))
        if code != 0 and "is finished at step" not in message:
            result.problems.append(f"{name}: it did not continue ({code}): {message}")
            return
        result.recovered += 1
        difference = differs(path, self.whole(name), without)
        if difference is None:
            result.bitwise_equal += 1
        else:
            result.problems.append(f"{name}: {difference}")


class Child:
    """A training process, forked from this one."""

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
                    limit = address_space_of() + address_space
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
        """Return the exit code, or None while the process runs."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = None if pid == 0 else _code(status)
        return self._code


def ended(child: Child) -> tuple[int, str]:
    """Wait for the end. Returns (exit code, error message)."""
    deadline = time.monotonic() + PATIENCE
    while (code := child.poll()) is None:
        if time.monotonic() > deadline:
            os.kill(child.pid, signal.SIGKILL)
            return -1, f"no end after {PATIENCE:.0f} s"
        time.sleep(0.01)
    message = child.log.read_text() if child.log.exists() else ""
    child.log.unlink(missing_ok=True)
    return code, message


def differs(path: Path, whole: Path, without: Sequence[str] = ()) -> str | None:
    """Return the first difference between two finished runs, bit for bit; None if there is none."""
    runs = RunFolder(path), RunFolder(whole)
    for log in ("metrics", "samples"):
        logged, expected = (comparable(getattr(run, log).read(), without) for run in runs)
        steps = [event["step"] for event in logged if event["event"] == "step"]
        if len(set(steps)) != len(steps):
            return f"{log} has a step twice"
        if logged != expected:
            return f"{log} differs"
    mine, theirs = (newest_good_checkpoint(run.checkpoints)[0] for run in runs)
    if mine.step != theirs.step:
        return f"it ended at step {mine.step}, not {theirs.step}"
    for file in sorted(theirs.folder.iterdir()):
        if file.suffix == ".safetensors" and file.read_bytes() != (mine.folder / file.name).read_bytes():
            return f"{file.name} differs"
    if leftovers := [entry for entry in path.rglob(f"{STAGING_PREFIX}*") if entry.exists()]:
        return f"{leftovers[0].name} was left behind"
    return None


def comparable(events: list[dict[str, Any]], without: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return events without times, without the ends of sessions, and without those named in `without`."""
    plain = [{key: value for key, value in event.items() if key not in CLOCK} for event in events]
    return sorted(
        (event for event in plain if event["event"] not in ("end", *without)),
        key=lambda event: (event["step"], json.dumps(event, sort_keys=True)),
    )


def last_step_logged(path: Path) -> int:
    """Return the last step in the log of a run."""
    return max((event["step"] for event in RunFolder(path).metrics.read()), default=0)


def newest_step(path: Path) -> int:
    """Return the step from which a run resumes; 0 if it starts anew."""
    try:
        return newest_good_checkpoint(path / "checkpoints")[0].step
    except EtudeError:
        return 0


def _quiet() -> Console:
    return Console(file=io.StringIO(), width=1000)


def _code(status: int) -> int:
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def address_space_of(pid: int | str = "self") -> int:
    """Return the bytes of address space that a process has mapped."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


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
