"""Read everything that a run wrote: settings, manifest, sessions, events, samples, ladder, checkpoints, status.

The page, ``etude runs``, replay, doctor, evaluation and emergence all read runs through :class:`RunRecord`.
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
from etude.run.settings import read_settings, settings_for_step, verified_settings
from etude.run.state import State, state_of
from etude.setting_types import MOST_THREADS
from etude.untrusted import MAX_JSON_BYTES, Unreadable

T = TypeVar("T")
Stamp = tuple[int, int, int] | None
"""Modification time (nanoseconds), size and inode of a file; None if it is missing."""
MOST_ROWS = 2**48
"""A larger number of rows or steps in a log is damage."""


class RunRecord:
    """Everything that a run wrote. Reading changes nothing on disk.

    Each part is read at its first use and then cached: make a new record to see later writes. A damaged part raises an
    InputError that names its file; the other parts remain readable.

    Attributes:
        run: the folder of the run.
        stamp: the stamp of metrics.jsonl when this record was made.
    """

    def __init__(self, run: RunFolder, *, remember: bool = False) -> None:
        """Make a record of ``run``, without reading anything yet.

        ``remember``: share parsed files with earlier records while the files are unchanged. For callers that poll, and
        do not modify the returned objects.
        """
        self.run = run
        self.stamp = stamp_of(run.metrics.path)
        self._remember = remember

    @classmethod
    def open(cls, path: Path, *, remember: bool = False) -> RunRecord:
        """Return the record of the run at ``path``, which may still be training.

        Raises:
            InputError: ``path`` is not a run folder, or has a link that leads out of it.
        """
        return cls(RunFolder.open(path), remember=remember)

    @classmethod
    def containing(cls, path: Path) -> RunRecord | None:
        """Return the record of the run that ``path`` is, or whose checkpoint it is; None if it is neither.

        Raises:
            InputError: the run has a link that leads out of it.
        """
        candidates = (path, path.resolve().parent.parent)  # RUN, or RUN of RUN/checkpoints/step-...
        folder = next((candidate for candidate in candidates if is_run(candidate)), None)
        return None if folder is None else cls.open(folder)

    def verified(self) -> RunRecord:
        """Return this record after verifying that its settings and manifest belong together.

        Raises:
            InputError: they do not, or one of them is damaged or was edited.
        """
        self.settings, self.manifest = verified_settings(self.run)
        return self

    # The definition of the run.

    @cached_property
    def settings(self) -> Resolved:
        """The current settings; :meth:`settings_at` returns those of a step."""
        return self._read(read_settings, self.run.settings_file)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """The manifest, even if it was edited (:meth:`verified` refuses an edited one)."""
        return self._read(_manifest_in, self.run.manifest_file)

    @property
    def sessions(self) -> list[dict[str, Any]]:
        """The manifest's entries of the sessions, oldest first, without damaged ones."""
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
        """Return the entry of the session that made ``step``; empty if it is unknown."""
        return next(reversed(self.sessions_before(step)), {})

    def settings_at(self, step: int) -> Resolved:
        """Return the settings of the update that leads to ``step``, with the number of threads of its session."""
        settings = settings_for_step(self.settings, self.manifest, step)
        machine = self.session_at(step).get("machine")
        threads = machine.get("threads") if isinstance(machine, dict) else None
        if type(threads) is int and 0 < threads <= MOST_THREADS:
            device = settings.device.model_copy(update={"threads": threads})
            settings = settings.model_copy(update={"device": device})
        return settings

    @cached_property
    def ladder(self) -> Ladder | None:
        """The n-gram ladder; None if the run has none."""
        return self._read(_ladder_in, self.run.ladder_file)

    # The logs.

    @cached_property
    def history(self) -> RunHistory:
        """Events, samples and ladder together, without damaged lines and unknown events."""
        return replace(self._metrics, samples=self.samples, ladder=self.ladder)

    @cached_property
    def _metrics(self) -> RunHistory:
        return RunHistory.from_metrics(self.run)

    @cached_property
    def samples(self) -> list[SampleEvent]:
        """The texts that the model generated during training."""
        return read_samples(self.run)

    def probe_lines(self) -> list[dict[str, Any]]:
        """Return the lines of probes.jsonl; :mod:`etude.evaluate.records` defines their form.

        Raises:
            InputError: the file is implausibly long, or unreadable.
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
        """The steps whose update was skipped, because the loss or the gradient was not finite."""
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
        """(step, rows): after ``step``, a micro-batch has ``rows`` rows, because more did not fit into memory."""
        events = ((event.step, event.micro_batch_rows) for event in self._metrics.micro_batches)
        return tuple(sorted((step, rows) for step, rows in events if 0 < rows < MOST_ROWS))

    def loss_at(self, step: int) -> float | None:
        """Return the logged training loss of a step, in nats per token; None if it is unknown."""
        event = self._metrics.steps.at(step)
        return None if event is None else _finite(event.loss)

    def grad_norm_at(self, step: int) -> float | None:
        """Return the logged norm of the gradient of a step, before clipping; None if it is unknown."""
        event = self._metrics.steps.at(step)
        return None if event is None else _finite(event.grad_norm)

    def micro_batch_rows_at(self, step: int) -> int | None:
        """Return the rows of a micro-batch of ``step``, if they were reduced before it; else None."""
        return next((rows for after, rows in reversed(self.micro_batches) if after < step), None)

    @property
    def last_step(self) -> int:
        """The last logged step; a corrupt number in the log cannot inflate it."""
        return self._metrics.last_step

    def extends(self, earlier: RunRecord) -> bool:
        """Return whether this record extends an ``earlier`` one of the same run, i.e. the run was not rolled back."""
        before = earlier.sessions
        return (
            self.settings == earlier.settings
            and self.manifest.get("data_fingerprint") == earlier.manifest.get("data_fingerprint")
            and self.sessions[: len(before)] == before
            and self._metrics.steps.starts_with(earlier._metrics.steps)
            and earlier.skipped <= self.skipped
            and self.revisions[: len(earlier.revisions)] == earlier.revisions
            and self.micro_batches[: len(earlier.micro_batches)] == earlier.micro_batches
        )

    # The current state.

    @property
    def is_current(self) -> bool:
        """Whether metrics.jsonl is unchanged since this record was made."""
        return stamp_of(self.run.metrics.path) == self.stamp

    @property
    def checkpoints(self) -> dict[int, Path]:
        """The folders of the committed checkpoints at this moment, by step, oldest first."""
        return {step_of(folder): folder for folder in list_checkpoints(self.run.checkpoints)}

    @cached_property
    def status(self) -> dict[str, Any]:
        """The content of status.json; empty if it is missing or damaged."""
        return self.run.status()

    @cached_property
    def state(self) -> State:
        """The state of the run, shared by the list of runs, the page and the doctor.

        See :func:`etude.run.state.state_of`. A run with damaged or unreadable settings or ladder has that state too.
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
        """Return the newest logged event of each of ``kinds``, as an object: see :func:`newest_events`."""
        return newest_events(self.run.metrics.path, kinds, most_bytes)

    def newest_step(self, newest: Mapping[str, dict[str, Any]]) -> int:
        """Return the last step among the ``newest`` events, else that of the status, which is updated less often."""
        steps = [_step(newest[kind]) for kind in (StepEvent.name, SkippedEvent.name) if kind in newest]
        return max(steps, default=_step(self.status))

    def require_step(self, step: int) -> None:
        """Raise InputError if the update that leads to ``step`` cannot be replayed."""
        first = min(self.checkpoints, default=None)
        if first is None:
            raise InputError(f"{self.run.path} has no checkpoint yet: train it for a while first")
        if self.last_step <= first:
            raise InputError(
                f"{self.run.path} has no step after its first checkpoint yet: train it for a while first"
            )
        if not first < step <= self.last_step:
            raise InputError(
                f"{self.run.path} has no step {step} to replay: choose one from {first + 1} to {self.last_step}"
            )

    def _read(self, read: Callable[[Path], T], file: Path) -> T:
        """Return ``read(file)``, from the cache of all records if this record may use it."""
        return _read_unchanged(read, file, stamp_of(file)) if self._remember else read(file)


@lru_cache(512)
def _read_unchanged(read: Callable[[Path], T], file: Path, stamp: Stamp) -> T:
    """Return ``read(file)``. The ``stamp`` is a part of the cache's key: a changed file is read again."""
    return read(file)


def stamp_of(file: Path) -> Stamp:
    """Return the stamp of a file, which differs after the file was changed."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _manifest_in(file: Path) -> dict[str, Any]:
    return RunFolder(file.parent).read_manifest(sealed=False)


def _ladder_in(file: Path) -> Ladder | None:
    return read_ladder(RunFolder(file.parent))


def _finite(value: float) -> float | None:
    """Return ``value`` if it is finite and within the range of fp32, else None."""
    return value if math.isfinite(value) and abs(value) < 1e39 else None


def _step(record: Mapping[str, Any]) -> int:
    """Return the step of an event or of the status; 0 if it is not plausible."""
    value = record.get("step")
    return value if type(value) is int and 0 <= value < 2**50 else 0
