"""The task that saves checkpoints of a network that is divided among ranks, on all of them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from etude.model.config import ModelConfig
from etude.run.checkpoints import Provenance
from etude.run.events import Event
from etude.train.divided_checkpoint import join_saving, save_divided
from etude.train.loop import TrainState
from etude.train.pieces_snapshot import PiecesSnapshot, Writers
from etude.train.saving import Save


@dataclass
class SaveDivided(Save):
    """Rank 0's: :class:`Save` with the pieces of all ranks."""

    writers: Writers | None = None

    def snapshot(self, state: TrainState) -> PiecesSnapshot:
        return PiecesSnapshot.of(state, copy=self.in_background)

    def write(self, snapshot: PiecesSnapshot, card: str, provenance: Provenance) -> None:
        assert self.writers is not None
        arguments = (self.config, self.run.tokenizer, card, provenance, self.writers)
        save_divided(self.run.checkpoints, snapshot, *arguments)


@dataclass
class JoinSave:
    """The other ranks': copy their pieces at the same steps, and send or write what rank 0 asks for."""

    config: ModelConfig
    writers: Writers
    saved_step: int
    in_background: bool = True
    _writer: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))
    _writing: Future[None] | None = None

    def __call__(self, state: TrainState) -> Sequence[Event]:
        if state.step == self.saved_step:
            return []
        self.finish()
        snapshot = PiecesSnapshot.of(state, copy=self.in_background)
        self.saved_step = state.step
        self._writing = self._writer.submit(join_saving, snapshot, self.config, self.writers)
        if not self.in_background:
            self.finish()
        return []

    def finish(self) -> None:
        """Wait until this rank's part of the newest checkpoint is written."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()
