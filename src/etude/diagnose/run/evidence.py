"""What is known of a run when it is judged: its record, and what was measured on its newest checkpoint and its text.

The rules are pure functions of an :class:`Evidence`; :mod:`etude.diagnose.run.gather` makes one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from etude.config import Resolved
from etude.diagnose.run import advice
from etude.diagnose.run.activations import NetworkState
from etude.diagnose.run.losses import LossSpread
from etude.diagnose.run.overlap import Overlap
from etude.messages import command
from etude.model.config import ModelConfig
from etude.run.events import EvalEvent
from etude.run.history import RunHistory, Steps


@dataclass(frozen=True)
class Absent:
    """Something that could not be measured, and why."""

    why: str


@dataclass(frozen=True)
class Text:
    """The run's text in numbers; what is not known is None."""

    train_tokens: int
    train_documents: int | None = None
    validation_tokens: int | None = None


@dataclass(frozen=True)
class Evidence:
    """Everything that a rule may look at."""

    path: Path
    settings: Resolved
    history: RunHistory
    state: str  # see etude.run.record.RunRecord.state
    reason: str  # that status.json gives for it
    model: ModelConfig
    text: Text
    network: NetworkState | Absent
    losses: LossSpread | Absent
    overlap: Overlap | Absent
    seconds_per_batch: float | Absent  # that making a batch takes

    @property
    def num_steps(self) -> int:
        """Steps of the whole run, as planned or as last revised."""
        return self.history.num_steps or self.settings.train.steps

    @property
    def tokens_per_step(self) -> int:
        train = self.settings.train
        return train.batch_rows * train.context

    @property
    def warmup_steps(self) -> int:
        return round(self.settings.train.warmup_fraction * self.num_steps)

    @cached_property
    def steps(self) -> Steps:
        """Those whose loss is a number."""
        return self.history.steps.where(np.isfinite(self.history.steps.column("loss")))

    @cached_property
    def evals(self) -> list[EvalEvent]:
        """Those whose loss is a number, as every cross-entropy above 0."""
        return [event for event in self.history.evals if 0 < event.val_loss < math.inf]

    @property
    def last_step(self) -> int:
        """The last step in the record."""
        return max(
            (events[-1].step for events in (self.history.steps, self.history.evals) if events), default=0
        )

    @property
    def untrained_loss(self) -> float:
        """Nats per token at step 0, or of a uniform guess where step 0 was not scored."""
        if self.evals and self.evals[0].step == 0:
            return self.evals[0].val_loss
        return math.log(self.model.vocab_size)

    @property
    def go_on(self) -> str:
        """The command that goes on with the run."""
        return command("train", "--resume", self.path)

    def again(self, changes: Mapping[str, float | str | bool]) -> str:
        """The command for the same run with other settings."""
        return advice.again(self.path, self.history.name, self.settings, changes)

    def lower_rates(self, times: float) -> str:
        """The advice to train again with learning rates so many times lower."""
        return advice.lower_rates(self.path, self.history.name, self.settings, times)

    def fresh(self) -> str:
        """The command for a new run on the same text."""
        return command("train", *self.settings.data.sources)
