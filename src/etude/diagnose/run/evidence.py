"""What a rule may read of a run: its record, and measurements on its newest checkpoint and its text.

The rules are pure functions of an :class:`Evidence`; :mod:`etude.diagnose.run.gather` makes one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from etude.config import NO_BASE, Resolved
from etude.diagnose.run import advice
from etude.diagnose.run.activations import NetworkState
from etude.diagnose.run.losses import LossSpread
from etude.diagnose.run.overlap import Overlap
from etude.messages import command
from etude.model.config import ModelConfig
from etude.run.events import EvalEvent
from etude.run.history import RunHistory, Steps
from etude.train.spikes import Shares


@dataclass(frozen=True)
class Absent:
    """A measurement that could not be made, and why."""

    why: str


@dataclass(frozen=True)
class Text:
    """The run's text in numbers; unknown ones are None."""

    train_tokens: int
    train_documents: int | None = None
    validation_tokens: int | None = None


@dataclass(frozen=True)
class Evidence:
    """Everything a rule may read."""

    path: Path
    settings: Resolved
    history: RunHistory
    state: str  # see etude.run.record.RunRecord.state
    reason: str  # for the state, from status.json
    model: ModelConfig
    text: Text
    network: NetworkState | Absent
    losses: LossSpread | Absent
    overlap: Overlap | Absent
    seconds_per_batch: float | Absent  # to make a batch
    shares: Shares | None = (
        None  # of samples of the base in the trained tokens of each step, where they are known
    )

    @property
    def num_steps(self) -> int:
        """Steps of the whole run, as planned or last revised."""
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
        """The steps with a finite loss."""
        return self.history.steps.where(np.isfinite(self.history.steps.column("loss")))

    @cached_property
    def evals(self) -> list[EvalEvent]:
        """The evaluations with a finite loss above 0, as every cross-entropy has.

        For a run on pairs of answers the loss is that of the held-out pairs, as in training.
        """
        of_pairs = {event.step: event.loss for event in self.history.preferences}
        events = [
            replace(event, val_loss=of_pairs.get(event.step, event.val_loss)) for event in self.history.evals
        ]
        return [event for event in events if 0 < event.val_loss < math.inf]

    @property
    def last_step(self) -> int:
        """The last step in the record."""
        return max(
            (events[-1].step for events in (self.history.steps, self.history.evals) if events), default=0
        )

    @property
    def untrained_loss(self) -> float:
        """Nats per token at step 0, or of a uniform prediction if step 0 was not evaluated."""
        if self.evals and self.evals[0].step == 0:
            return self.evals[0].val_loss
        return math.log(self.model.vocab_size)

    @property
    def has_base(self) -> bool:
        """Whether it begins with the weights of a base model, whose network it cannot change."""
        return self.settings.model.base != NO_BASE

    @property
    def resume_command(self) -> str:
        """The command that resumes the run."""
        return command("train", "--resume", self.path)

    def rerun(self, changes: Mapping[str, float | str | bool]) -> str:
        """Return the command that trains the run again with other settings."""
        return advice.rerun_command(self.path, self.history.name, self.settings, changes)

    def lower_rates(self, times: float) -> str:
        """Return the advice to train again with learning rates ``times`` lower."""
        return advice.lower_rates(self.path, self.history.name, self.settings, times)

    def new_run_command(self) -> str:
        """Return the command for a new run on the same text."""
        base = ("--from", self.settings.model.base) if self.has_base else ()
        return command("train", *self.settings.data.sources, *base)
