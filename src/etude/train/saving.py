"""Save checkpoints in the background while the run trains."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from etude.errors import EtudeError
from etude.files import write_failure
from etude.messages import command
from etude.model.adapter import is_factor
from etude.model.config import ModelConfig
from etude.run import RunFolder
from etude.run.checkpoints import Provenance, checkpoint_name, prune_checkpoints
from etude.run.events import CheckpointEvent, Event
from etude.show.lines import format_bytes
from etude.train.checkpoint import Snapshot, save_checkpoint
from etude.train.loop import TrainState
from etude.train.optimizer import parameters_of_config

FIXED_BYTES, HEADER_BYTES = 6 * 1024, 110
"""Bytes of configuration, card and marker; and of the entry of a tensor in the head of its file."""


@dataclass
class Save:
    """The task that saves a checkpoint, then removes those that need not be kept.

    The call copies the state, and ``commit`` writes the checkpoint's line to the log. Only then does a thread write
    the checkpoint, so a checkpoint is never ahead of the log. Each checkpoint waits for the previous one: a slow disk
    slows the run down, but copies do not pile up in memory. An error of the thread is raised at the next checkpoint or
    at the end.
    """

    run: RunFolder
    config: ModelConfig
    keep: int  # number of newest checkpoints to keep
    card: Callable[[int], str]  # returns the model card of a step
    saved_step: int = -1  # of the newest checkpoint
    keep_every: int = 0  # checkpoints at multiples of this step are kept for good; 0: none
    state_every: int = (
        1  # of the checkpoints kept for good, those at its multiples keep the optimizer's state
    )
    in_background: bool = True
    spared: Callable[[], Collection[int]] = tuple
    """Returns further steps whose checkpoints are kept."""
    commit: Callable[[CheckpointEvent], Provenance] = lambda event: Provenance()
    """Writes the checkpoint's line to the log, and returns the digests of the logs for the checkpoint to hold."""
    warn: Callable[[str], object] = lambda line: None  # called for each damaged checkpoint that was set aside
    committed: Callable[[CheckpointEvent], object] = lambda event: None  # called by the thread that wrote it
    seconds_writing: float = 0.0  # that the newest checkpoint took
    _writer: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))
    _writing: Future[None] | None = None

    def __post_init__(self) -> None:
        # Start the thread while memory is available: Thread.start() blocks forever if the new thread cannot allocate.
        self._writer.submit(lambda: None).result()

    def __call__(self, state: TrainState) -> Sequence[Event]:
        """Copy the state, log the checkpoint, and start to write it.

        Raises:
            EtudeError: the disk has no room for it, or the previous checkpoint could not be written.
        """
        if state.step == self.saved_step:
            return []
        self.finish()
        snapshot = self.snapshot(state)
        require_room(self.run.path, snapshot.num_bytes + self._other_bytes())
        card, folder = self.card(state.step), self.run.checkpoints / checkpoint_name(state.step)
        where = (state.step, state.tokens_seen, state.wall_time)
        event = CheckpointEvent(*where, str(folder.relative_to(self.run.path)))
        provenance = self.commit(event)  # of logs that end with the line of this checkpoint
        self.saved_step = state.step
        spared = tuple(self.spared())
        self._writing = self._writer.submit(self._write, snapshot, card, provenance, event, spared)
        if not self.in_background:
            self.finish()
        return [event]

    def snapshot(self, state: TrainState) -> Any:
        """Return what :meth:`write` needs of the state: a copy if it is written in the background."""
        return Snapshot.of(state, copy=self.in_background, whole=False)

    def write(self, snapshot: Any, card: str, provenance: Provenance) -> None:
        """Write and commit a checkpoint. Called by the thread that writes."""
        save_checkpoint(self.run.checkpoints, snapshot, self.config, self.run.tokenizer, card, provenance)

    def _other_bytes(self) -> int:
        """Return the bytes of a checkpoint besides its tensors."""
        files = [file.stat().st_size for file in self.run.tokenizer.glob("*") if file.is_file()]
        return sum(files) + FIXED_BYTES + 3 * header_bytes(self.config)

    def finish(self) -> None:
        """Wait until the newest checkpoint is written.

        Raises:
            EtudeError: it could not be written.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write(
        self,
        snapshot: Any,
        card: str,
        provenance: Provenance,
        event: CheckpointEvent,
        spared: Collection[int],
    ) -> None:
        begin = time.monotonic()
        try:
            for log in self.run.logs.values():
                log.sync()
            self.write(snapshot, card, provenance)
            rule = (self.keep, self.keep_every, self.state_every, spared)
            for line in prune_checkpoints(self.run.checkpoints, *rule):
                self.warn(line)
        except OSError as error:
            raise write_failure(self.run.checkpoints, error) from error
        self.seconds_writing = time.monotonic() - begin
        self.committed(event)


def require_room(folder: Path, needed: int) -> None:
    """Raise EtudeError if the disk of ``folder`` has fewer than ``needed`` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise EtudeError(
            f"a checkpoint takes {format_bytes(needed)} and {folder} has {format_bytes(free)} free: free some space, "
            f"then continue with:  {command('train', '--resume', folder)}"
        )


def header_bytes(config: ModelConfig) -> int:
    """Return the bytes of the head of a weight file."""
    names = [parameter.name for parameter in parameters_of_config(config)]
    return HEADER_BYTES * len([name for name in names if config.adapter is None or is_factor(name)])
