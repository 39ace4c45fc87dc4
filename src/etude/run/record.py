"""Read everything that a run wrote: settings, manifest, sessions, events, samples, ladder, checkpoints, status.

This is the one reader. The page, ``etude runs``, replay, doctor, evaluation and emergence ask it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeVar

from etude.config import Resolved
from etude.errors import InputError
from etude.run.checkpoints import list_checkpoints, step_of
from etude.run.events import EvalEvent, SampleEvent, SkippedEvent, StepEvent
from etude.run.folder import SESSIONS, RunFolder, is_run
from etude.run.follow import newest_events
from etude.run.history import RunHistory, read_ladder, read_samples
from etude.run.ladder import Ladder
from etude.run.settings import own_settings, read_settings, settings_for_step
from etude.run.state import State, state_of
from etude.setting_types import MOST_THREADS
from etude.untrusted import MAX_JSON_BYTES, Unreadable

T = TypeVar("T")
Stamp = tuple[int, int, int] | None
"""Time, size and inode of a file, which change with it; None where there is no file."""
MOST_ROWS = 2**48


class RunRecord:
    """What a run wrote, read from its folder. Nothing is computed, and nothing on disk changes.

    Each part is read when it is first used, and kept: a new record shows what was written since. Parts that are damaged
    raise an InputError that names the file; the others can be read all the same.

    Attributes:
        run: the folder.
        stamp: of metrics.jsonl when this record was made.
    """

    def __init__(self, run: RunFolder, *, remember: bool = False) -> None:
        """Make a record of ``run``; nothing is read yet.

        ``remember``: reuse what an earlier record read from files that have not changed since. For callers who ask
        every few seconds, and change nothing that they are given.
        """
        self.run = run
        self.stamp = stamp_of(run.metrics.path)
        self._remember = remember

    @classmethod
    def open(cls, path: Path, *, remember: bool = False) -> RunRecord:
        """Return the record of the run at ``path``, which may still be training.

        Raises:
            InputError: there is no run, or a link in it leads out of it.
        """
        return cls(RunFolder.open(path), remember=remember)

    @classmethod
    def around(cls, path: Path) -> RunRecord | None:
        """Return the record of the run at ``path``, or of the run of the checkpoint at ``path``; None where none is.

        Raises:
            InputError: a link in the run leads out of it.
        """
        folder = next((there for there in (path, path.resolve().parent.parent) if is_run(there)), None)
        return None if folder is None else cls.open(folder)

    def verified(self) -> RunRecord:
        """Return this record once its settings and its manifest are known to belong together.

        Raises:
            InputError: they do not, or one of them is damaged or was edited.
        """
        self.settings, self.manifest = own_settings(self.run)
        return self

    # What the run is.

    @cached_property
    def settings(self) -> Resolved:
        """The settings as they are now; :meth:`settings_at` returns those of a step."""
        return self._read(read_settings, self.run.settings_file)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """The manifest, also one that was edited (:meth:`verified` refuses that)."""
        return self._read(_manifest_in, self.run.manifest_file)

    @property
    def sessions(self) -> list[dict[str, Any]]:
        """The manifest's entry of each session, oldest first; damaged ones are skipped."""
        entries = self.manifest.get(SESSIONS)
        return [
            entry
            for entry in (entries if isinstance(entries, list) else [])
            if isinstance(entry, dict) and type(entry.get("from_step")) is int
        ]

    def sessions_before(self, step: int) -> list[dict[str, Any]]:
        """Return the entries of the sessions that began before ``step``."""
        return [entry for entry in self.sessions if entry["from_step"] < step]

    def session_at(self, step: int) -> dict[str, Any]:
        """Return the entry of the session that made ``step``; empty where none is known."""
        return next(reversed(self.sessions_before(step)), {})

    def settings_at(self, step: int) -> Resolved:
        """Return the settings that the update to ``step`` was made with, and the threads of its session."""
        settings = settings_for_step(self.settings, self.manifest, step)
        machine = self.session_at(step).get("machine")
        threads = machine.get("threads") if isinstance(machine, dict) else None
        if type(threads) is int and 0 < threads <= MOST_THREADS:
            device = settings.device.model_copy(update={"threads": threads})
            settings = settings.model_copy(update={"device": device})
        return settings

    @cached_property
    def ladder(self) -> Ladder | None:
        """The n-gram ladder; None where the run has none."""
        return self._read(_ladder_in, self.run.ladder_file)

    # What happened.

    @cached_property
    def history(self) -> RunHistory:
        """The events, samples and ladder together. Damaged lines and unknown events are skipped."""
        return replace(self._metrics, samples=self.samples, ladder=self.ladder)

    @cached_property
    def _metrics(self) -> RunHistory:
        return RunHistory.of_metrics(self.run)

    @cached_property
    def samples(self) -> list[SampleEvent]:
        """The texts that the model generated while it trained."""
        return read_samples(self.run)

    def probe_lines(self) -> list[dict[str, Any]]:
        """Return the lines of probes.jsonl, which :mod:`etude.evaluate.records` gives their form.

        Raises:
            InputError: the file is too long to be one of ours, or may not be read.
        """
        log = self.run.probes
        if log.path.is_file() and log.path.stat().st_size > MAX_JSON_BYTES:
            raise InputError(f"{log.path} is damaged (longer than {MAX_JSON_BYTES:,} bytes): restore it")
        return log.read()

    @property
    def evals(self) -> list[EvalEvent]:
        """The evaluations on validation text."""
        return self._metrics.evals

    @cached_property
    def skipped(self) -> frozenset[int]:
        """The steps whose update was skipped, because its loss or gradient was not finite."""
        return frozenset(self._metrics.skipped)

    @cached_property
    def checksums(self) -> dict[int, str]:
        """The checksums of all parameters, by step."""
        return {event.step: event.parameters for event in self._metrics.checksums if event.parameters}

    @cached_property
    def revisions(self) -> tuple[tuple[int, int], ...]:
        """(step, total): from ``step`` on, the planned length of the run is ``total`` steps."""
        lengths = ((event.step, event.num_steps) for event in self._metrics.lengths)
        return tuple((step, total) for step, total in lengths if step < total < MOST_ROWS)

    @cached_property
    def micro_batches(self) -> tuple[tuple[int, int], ...]:
        """(step, rows): after ``step``, a micro-batch has so many rows, because more did not fit the memory."""
        events = ((event.step, event.micro_batch_rows) for event in self._metrics.micro_batches)
        return tuple(sorted((step, rows) for step, rows in events if 0 < rows < MOST_ROWS))

    def loss_at(self, step: int) -> float | None:
        """Return the recorded training loss of a step, in nats per token; None where none is known."""
        event = self._metrics.steps.at(step)
        return None if event is None else _finite(event.loss)

    def grad_norm_at(self, step: int) -> float | None:
        """Return the recorded norm of the gradient of a step, before clipping; None where none is known."""
        event = self._metrics.steps.at(step)
        return None if event is None else _finite(event.grad_norm)

    def micro_batch_rows_at(self, step: int) -> int | None:
        """Return the rows of a micro-batch of ``step``, where they were fewer than planned."""
        return next((rows for after, rows in reversed(self.micro_batches) if after < step), None)

    @property
    def last_step(self) -> int:
        """The last logged step; a corrupt number in the log cannot inflate it."""
        return self._metrics.last_step

    def extends(self, earlier: RunRecord) -> bool:
        """Return whether this record extends an ``earlier`` one of the same run: it was not rolled back meanwhile."""
        before = earlier.sessions
        return (
            self.settings == earlier.settings
            and self.manifest.get("data_fingerprint") == earlier.manifest.get("data_fingerprint")
            and self.sessions[: len(before)] == before
            and self._metrics.steps.begin_with(earlier._metrics.steps)
            and earlier.skipped <= self.skipped
            and self.revisions[: len(earlier.revisions)] == earlier.revisions
            and self.micro_batches[: len(earlier.micro_batches)] == earlier.micro_batches
        )

    # What is there now.

    @property
    def is_current(self) -> bool:
        """Whether metrics.jsonl is as it was when this record was made."""
        return stamp_of(self.run.metrics.path) == self.stamp

    @property
    def checkpoints(self) -> dict[int, Path]:
        """The folders of the checkpoints that are there now, by step, oldest first."""
        return {step_of(folder): folder for folder in list_checkpoints(self.run.checkpoints)}

    @cached_property
    def status(self) -> dict[str, Any]:
        """What its process last reported; empty where that cannot be read."""
        return self.run.status()

    @cached_property
    def state(self) -> State:
        """What has become of the run, in one word; the list of runs, the page and the doctor all use it.

        See :func:`etude.run.state.state_of`. A run whose settings or ladder are damaged or may not be read is so too.
        """
        state = state_of(self.run, self.status)
        if state in ("damaged", "unreadable"):
            return state
        try:
            _ = self.settings, self.ladder
        except (Unreadable, PermissionError):
            return "unreadable"
        except InputError:
            return "damaged"
        return state

    def newest(self, *kinds: str, most_bytes: int | None = None) -> dict[str, dict[str, Any]]:
        """Return the newest event of each of ``kinds``, as its log line: see :func:`newest_events`."""
        return newest_events(self.run.metrics.path, kinds, most_bytes)

    def newest_step(self, newest: Mapping[str, dict[str, Any]]) -> int:
        """Return the last step among the ``newest`` events, else that of the status, which is written less often."""
        steps = [_step(newest[kind]) for kind in (StepEvent.name, SkippedEvent.name) if kind in newest]
        return max(steps, default=_step(self.status))

    def require_step(self, step: int) -> None:
        """Raise InputError where the update to ``step`` cannot be replayed."""
        first = min(self.checkpoints, default=None)
        if first is None:
            raise InputError(f"{self.run.path} has no checkpoint yet: train it for a while first")
        if self.last_step <= first:
            raise InputError(f"{self.run.path} has made no step since its first checkpoint: train it first")
        if not first < step <= self.last_step:
            raise InputError(
                f"{self.run.path} has no step {step} to look at: choose one from {first + 1} to {self.last_step}"
            )

    def _read(self, read: Callable[[Path], T], file: Path) -> T:
        return _read_unchanged(read, file, stamp_of(file)) if self._remember else read(file)


@lru_cache(512)
def _read_unchanged(read: Callable[[Path], T], file: Path, stamp: Stamp) -> T:
    return read(file)


def stamp_of(file: Path) -> Stamp:
    """Return the stamp of a file: it is another one once the file was changed."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _manifest_in(file: Path) -> dict[str, Any]:
    return RunFolder(file.parent).read_manifest(sealed=False)


def _ladder_in(file: Path) -> Ladder | None:
    return read_ladder(RunFolder(file.parent))


def _finite(value: float) -> float | None:
    """Return a number that fp32 can hold, else None."""
    return value if math.isfinite(value) and abs(value) < 1e39 else None


def _step(record: Mapping[str, Any]) -> int:
    value = record.get("step")
    return value if type(value) is int and 0 <= value < 2**50 else 0
