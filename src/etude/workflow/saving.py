"""Save checkpoints in the background while the run trains, and predict the disk space of all of them."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from etude.config import ResolvedTrain
from etude.errors import EtudeError, InputError
from etude.files import write_failure
from etude.messages import command
from etude.model.adapter import is_factor
from etude.model.config import ModelConfig
from etude.plan.plan import Plan
from etude.pretrained.store import new_bytes
from etude.run import RunFolder
from etude.run.checkpoints import (
    EARLY_STEPS,
    Provenance,
    checkpoint_name,
    is_never_pruned,
    prune_checkpoints,
)
from etude.run.events import CheckpointEvent, Event
from etude.train.checkpoint import Snapshot, save_checkpoint
from etude.train.loop import TrainState
from etude.train.optimizer import parameters_of_config, saved_weights

FIXED_BYTES, HEADER_BYTES = 6 * 1024, 110
"""Bytes of configuration, card and marker; and of the entry of a tensor in the head of its file."""
MOST_SAVES = 1000
"""Checkpoints on disk up to which their space is predicted exactly."""


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
        snapshot = Snapshot.of(state, copy=self.in_background, whole=False)
        require_room(self.run.path, snapshot.num_bytes + self._other_bytes())
        card, folder = self.card(state.step), self.run.checkpoints / checkpoint_name(state.step)
        where = (state.step, state.tokens_seen, state.wall_time)
        event = CheckpointEvent(*where, str(folder.relative_to(self.run.path)))
        provenance = self.commit(event)  # of logs that end with the line of this checkpoint
        self.saved_step = state.step
        self._writing = self._writer.submit(self._write, snapshot, card, provenance, event)
        if not self.in_background:
            self.finish()
        return [event]

    def _other_bytes(self) -> int:
        """Return the bytes of a checkpoint besides its tensors."""
        files = [file.stat().st_size for file in self.run.tokenizer.glob("*") if file.is_file()]
        return sum(files) + FIXED_BYTES + 3 * _header_bytes(self.config)

    def finish(self) -> None:
        """Wait until the newest checkpoint is written.

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
            for line in prune_checkpoints(self.run.checkpoints, self.keep, self.keep_every, self.state_every):
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
            f"a checkpoint takes {_megabytes(needed)} and {folder} has {_megabytes(free)} free: free some space, then "
            f"continue with:  {command('train', '--resume', folder)}"
        )


@dataclass(frozen=True)
class DiskUse:
    """Predicted disk space of the checkpoints of a whole run.

    Attributes:
        checkpoint: bytes of one with the optimizer's state.
        kept: checkpoints at the end.
        with_state: of these, the ones with the optimizer's state.
        final: bytes at the end.
        most: bytes at most, while a new checkpoint is written before old ones are removed.
    """

    checkpoint: int
    kept: int
    with_state: int
    final: int
    most: int

    def __str__(self) -> str:
        states = "" if self.with_state >= self.kept - 1 else f", {self.with_state} with the optimizer's state"
        return (
            f"checkpoints: {self.kept} kept{states}, up to {_megabytes(self.checkpoint)} each: "
            f"at most {_megabytes(self.most)} on disk"
        )


def disk_use(plan: Plan, begins: int = 0) -> DiskUse:
    """Predict the disk space by going through the saves that matter, and what each removes.

    A fork ``begins`` with a copy of its parent's checkpoint of that step. For more than :data:`MOST_SAVES` checkpoints
    it is an upper bound, with the optimizer's state in each.
    """
    train, header = plan.settings.train, _header_bytes(plan.model)
    weights = 4 * saved_weights(plan.model) + _tokenizer_bytes(plan) + FIXED_BYTES + header
    whole = weights + plan.memory.optimizer + 2 * header
    for_good = range(0, train.steps + 1, train.keep_every or train.steps + 1)
    newest = _newest_saves(train)
    if (count := len(for_good) + len(newest)) > MOST_SAVES:
        return DiskUse(whole, count, count, whole * count, whole * count)
    kept: dict[int, int] = {}
    most = 0
    early = {step for step in EARLY_STEPS if step <= train.steps}
    for step in sorted({begins, *(step for step in {*for_good, *newest, *early} if step > begins)}):
        kept[step] = whole
        if step == 0:  # no optimizer has a state yet
            folder = Path(plan.settings.run.folder)
            kept[step] = weights if plan.base is None else new_bytes(plan.base, folder) + FIXED_BYTES
        most = max(most, sum(kept.values()))
        prunable = [old for old in list(kept)[1:] if not is_never_pruned(old, train.keep_every)]
        for old in prunable[: max(0, len(prunable) - train.keep_checkpoints)]:
            del kept[old]
        for old in list(kept)[1 : -train.keep_checkpoints]:
            if old % plan.state_every:
                kept[old] = weights
    with_state = sum(size == whole for size in kept.values())
    return DiskUse(whole, len(kept), with_state, sum(kept.values()), most)


def _newest_saves(train: ResolvedTrain) -> range | list[int]:
    """Return the last regular saves of a run: enough that those which are not kept for good include the newest ones.

    At least every second regular save is not at a multiple of ``keep_every``, or none is.
    """
    last = range(0, train.steps + 1, train.checkpoint_every)[-2 * train.keep_checkpoints - len(EARLY_STEPS) :]
    return last if len(last) > MOST_SAVES else [*last, train.steps]


def require_disk(plan: Plan, folder: Path, begins: int = 0) -> DiskUse:
    """Return the predicted disk space of the run, which ``folder`` has free; ``begins`` as for :func:`disk_use`.

    Raises:
        InputError: ``folder`` has less space free.
    """
    use = disk_use(plan, begins)
    existing = next(place for place in (folder, *folder.absolute().parents) if place.is_dir())
    free = shutil.disk_usage(existing).free
    if use.most > free:
        raise InputError(
            f"{use}, and {existing} has {_megabytes(free)} free: free some space, choose another --set run.folder, "
            "or a smaller --set train.keep_checkpoints"
        )
    return use


def _tokenizer_bytes(plan: Plan) -> int:
    """Return the bytes of the tokenizer's files, which every checkpoint holds."""
    tokenizer = plan.data.tokenizer
    if tokenizer.carried is None:
        return len(tokenizer.to_json().encode("utf-8"))
    return sum(map(len, tokenizer.carried.values()))


def _header_bytes(config: ModelConfig) -> int:
    """Return the bytes of the head of a weight file."""
    names = [parameter.name for parameter in parameters_of_config(config)]
    return HEADER_BYTES * len([name for name in names if config.adapter is None or is_factor(name)])


def _megabytes(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{max(0.1, count / 1e6):,.1f} MB"
