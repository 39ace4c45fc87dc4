"""What is known of a run when it is judged: its record, and what was measured on its newest checkpoint and its text.

The rules are pure functions of an :class:`Evidence`; :mod:`etude.workflow.diagnosis.gather` makes one.
"""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from etude.config import Settings, resolved
from etude.model.config import ModelConfig
from etude.train.events import EvalEvent
from etude.workflow.diagnosis.activations import NetworkState
from etude.workflow.diagnosis.losses import LossSpread
from etude.workflow.diagnosis.overlap import Overlap
from etude.workflow.history import RunHistory, Steps


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
    settings: Settings
    history: RunHistory
    state: str  # of etude.train.run_state
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
        return self.history.num_steps or resolved(self.settings.train.steps, "train.steps")

    @property
    def tokens_per_step(self) -> int:
        train = self.settings.train
        return resolved(train.batch_rows, "train.batch_rows") * resolved(train.context, "train.context")

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
        return shlex.join(["etude", "train", "--resume", str(self.path)])

    def again(self, *overrides: str) -> str:
        """The command for the same run with other settings."""
        command = [
            "etude",
            "train",
            "--config",
            str(self.path / "run.toml"),
            "--name",
            f"{self.history.name}-again",
        ]
        return shlex.join(command + [part for override in overrides for part in ("--set", override)])

    def fresh(self) -> str:
        """The command for a new run on the same text."""
        return shlex.join(["etude", "train", *self.settings.data.sources])

    def rates(self, factor: float) -> list[str]:
        """Overrides that multiply the run's learning rates."""
        train = self.settings.train
        rates = [f"train.lr={resolved(train.lr, 'train.lr') * factor:g}"]
        if train.optimizer == "muon":
            rates.append(f"train.muon_lr={resolved(train.muon_lr, 'train.muon_lr') * factor:g}")
        return rates
