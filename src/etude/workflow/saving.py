"""Checkpoints that cost the loop a copy, written beside the steps; and what all of them will take on disk."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from etude.errors import EtudeError, InputError
from etude.files import write_failure
from etude.messages import command
from etude.model.config import ModelConfig
from etude.plan.plan import Plan
from etude.run import RunFolder
from etude.run.checkpoints import EARLY_STEPS, Provenance, checkpoint_name, prune_checkpoints
from etude.run.events import CheckpointEvent, Event
from etude.train.checkpoint import Snapshot, save_checkpoint
from etude.train.loop import TrainState

BESIDES, BESIDES_A_TOKEN = 2**15, 80
"""Bytes of a checkpoint besides its tensors, and for each token of the vocabulary: configuration, card, tokenizer."""


@dataclass
class Save:
    """Commit a checkpoint, then remove the ones that are not to be kept.

    The state is copied at once, and ``commit`` writes the checkpoint's line to the record. Only then does a thread
    write the checkpoint, so it is never ahead of the log. The next checkpoint waits for the one before it: a slow disk
    slows the run down and is never overrun. What the thread could not do is raised at the next checkpoint or the end.
    """

    run: RunFolder
    config: ModelConfig
    keep: int
    card: Callable[[int], str]  # of a step
    saved_step: int = -1
    keep_every: int = 0
    beside_the_steps: bool = True
    commit: Callable[[CheckpointEvent], Provenance] = lambda event: Provenance()
    """Writes the line of the checkpoint, and returns what the checkpoint vouches for."""
    warn: Callable[[str], object] = lambda line: None  # of what was set aside
    committed: Callable[[CheckpointEvent], object] = lambda event: None  # called by the thread that wrote it
    seconds_writing: float = 0.0  # that the last one took
    _writer: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))
    _writing: Future[None] | None = None

    def __post_init__(self) -> None:
        # Start the thread while memory is available: Thread.start() blocks forever if the new thread cannot allocate.
        self._writer.submit(lambda: None).result()

    def __call__(self, state: TrainState) -> Sequence[Event]:
        """Copy the state, log the checkpoint, and have it written.

        Raises:
            EtudeError: this one has no room, or the one before it could not be written.
        """
        if state.step == self.saved_step:
            return []
        self.finish()
        snapshot = Snapshot.of(state)
        require_room(self.run.path, snapshot.num_bytes + _besides(self.config))
        card, folder = self.card(state.step), self.run.checkpoints / checkpoint_name(state.step)
        where = (state.step, state.tokens_seen, state.wall_time)
        event = CheckpointEvent(*where, str(folder.relative_to(self.run.path)))
        # The record now ends with the line of this checkpoint, and that is what it vouches for.
        provenance = self.commit(event)
        self.saved_step = state.step
        self._writing = self._writer.submit(self._write, snapshot, card, provenance, event)
        if not self.beside_the_steps:
            self.finish()
        return [event]

    def finish(self) -> None:
        """Wait until the last checkpoint is committed.

        Raises:
            EtudeError: it could not be written.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write(self, snapshot: Snapshot, card: str, provenance: Provenance, event: CheckpointEvent) -> None:
        begin = time.monotonic()
        try:
            for log in self.run.logs.values():
                log.sync()
            save_checkpoint(self.run.checkpoints, snapshot, self.config, self.run.tokenizer, card, provenance)
            for line in prune_checkpoints(self.run.checkpoints, self.keep, self.keep_every):
                self.warn(line)
        except OSError as error:
            raise write_failure(self.run.checkpoints, error) from error
        self.seconds_writing = time.monotonic() - begin
        self.committed(event)


def require_room(folder: Path, needed: int) -> None:
    """Raises EtudeError when ``folder`` has not so many bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise EtudeError(
            f"a checkpoint takes {_megabytes(needed)} and {folder} has {_megabytes(free)} free: free some space, then "
            f"continue with:  {command('train', '--resume', folder)}"
        )


@dataclass(frozen=True)
class DiskUse:
    """What the checkpoints of a whole run take."""

    checkpoint: int  # bytes of one
    kept_for_good: int  # checkpoints
    newest: int

    @property
    def total(self) -> int:
        """Bytes at the end, and of the one that is being written before another goes."""
        return self.checkpoint * (self.kept_for_good + self.newest + 1)

    def __str__(self) -> str:
        return (
            f"checkpoints: {self.kept_for_good} kept for good and the {self.newest} newest, "
            f"{_megabytes(self.checkpoint)} each: up to {_megabytes(self.total)} on disk"
        )


def disk_use(plan: Plan) -> DiskUse:
    """Counted from the structure and the steps at which checkpoints are made."""
    train = plan.settings.train
    steps = train.steps
    kept = {step for step in EARLY_STEPS if step <= steps}
    if train.keep_every:
        kept.update(range(0, steps + 1, train.keep_every))
    later = steps // train.checkpoint_every + 1
    tensors = plan.memory.weights + plan.memory.optimizer
    return DiskUse(tensors + _besides(plan.model), len(kept), min(train.keep_checkpoints, later))


def require_disk(plan: Plan, folder: Path) -> DiskUse:
    """What the run will take, once it is known that ``folder`` has room for it.

    Raises:
        InputError: it has not.
    """
    use = disk_use(plan)
    there = next(place for place in (folder, *folder.absolute().parents) if place.is_dir())
    free = shutil.disk_usage(there).free
    if use.total > free:
        raise InputError(
            f"{use}, and {there} has {_megabytes(free)} free: free some space, choose another --set run.folder, or a "
            "smaller --set train.keep_checkpoints"
        )
    return use


def _besides(config: ModelConfig) -> int:
    return BESIDES + BESIDES_A_TOKEN * config.vocab_size


def _megabytes(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{max(0.1, count / 1e6):,.1f} MB"
