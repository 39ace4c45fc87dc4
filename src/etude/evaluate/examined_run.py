"""What an evaluation needs from a run: its settings, its text, and the facts of each checkpoint."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from etude.config import Resolved
from etude.data.prepared_data import PreparedData
from etude.device import git_commit
from etude.evaluate.records import Where
from etude.model.config import ModelConfig
from etude.model.cost import count_parameters, training_flops_per_token
from etude.run.events import EvalEvent
from etude.run.ladder import Ladder
from etude.run.record import RunRecord
from etude.train.run_text import text_of_run


@dataclass(frozen=True)
class ExaminedRun:
    """A run, its text and its evaluations so far."""

    folder: Path
    settings: Resolved
    data: PreparedData
    ladder: Ladder | None
    evals: tuple[EvalEvent, ...]

    @classmethod
    def of(cls, path: Path) -> ExaminedRun | None:
        """Return the run at ``path``, or the run of the checkpoint at ``path``; None for a model folder without a run.

        Raises:
            InputError: the run is damaged, or its text is missing.
        """
        record = RunRecord.containing(path)
        if record is None:
            return None
        folder, settings = record.run.path, record.settings
        data = text_of_run(folder, settings, record.manifest)
        return cls(folder, settings, data, record.ladder, tuple(record.evals))

    def where(self, step: int, config: ModelConfig) -> Callable[[str], Where]:
        """Return a function from a suite's name to what its records note about the checkpoint of ``step``."""
        train = self.settings.train
        context = train.context
        tokens = step * train.batch_rows * context
        return partial(
            Where,
            self.settings.run.seed,
            step,
            tokens,
            tokens * training_flops_per_token(config, context, causal=True),
            count_parameters(config).non_embedding,
            self.val_loss(step),
            commit=git_commit(),
        )

    def val_loss(self, step: int) -> float | None:
        """Return the loss of the evaluation at ``step``; between two, interpolate over log(1 + step)."""
        steps = [event.step for event in self.evals]
        at = bisect.bisect_left(steps, step)
        if at < len(steps) and steps[at] == step:
            return self.evals[at].val_loss
        if not 0 < at < len(steps):
            return None
        before, after = self.evals[at - 1], self.evals[at]
        low, high = math.log1p(before.step), math.log1p(after.step)
        share = (math.log1p(step) - low) / (high - low)
        return before.val_loss + share * (after.val_loss - before.val_loss)
