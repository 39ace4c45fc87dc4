"""Seconds that a member of a sweep takes: its steps, the tasks between them, and the probes at each checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

from etude.evaluate.network_answerer import ModelAnswerer
from etude.evaluate.questions import Questions
from etude.generate.training_samples import sample_task
from etude.plan.measuring import seconds_per_step, tokens_per_step
from etude.plan.plan import Plan, initial_state, validation_text
from etude.plan.task_costs import TaskCosts
from etude.run.checkpoints import is_never_pruned
from etude.train.checkpoint import Snapshot, save_checkpoint

COMPILED_STEPS = 12
"""Updates of a compiled step that are timed."""
OVERHEAD_SECONDS = 15.0
"""Start-up of the two processes of a member: they start, load, and compile from the cache."""
NULLS = 2
"""Random weights and counting answer the same items; each takes about as long as a checkpoint."""


@dataclass(frozen=True)
class SizeCost:
    """Seconds of a size on this machine: per token of training, the tasks, all items once, and making the questions."""

    token: float
    tasks: TaskCosts
    answers: float
    questions: float

    @classmethod
    def measure(cls, plan: Plan, questions: Questions, making: float) -> SizeCost:
        """Measure a size. ``making``: seconds to make the questions, which each member repeats to verify their hash."""
        compiled = plan.settings.device.compile is not False
        step = seconds_per_step(plan, COMPILED_STEPS, compiled=compiled)
        answerer = ModelAnswerer(initial_state(plan).model, plan.data.tokenizer)
        begun = time.monotonic()
        answerer.answer([item for probe in questions.probes for item in probe.items])
        answers = time.monotonic() - begun
        return cls(step / tokens_per_step(plan), task_costs(plan), answers, making)

    def training(self, plan: Plan) -> float:
        """Return the seconds from the first to the last step of a run of this plan."""
        steps = plan.settings.train.steps
        tokens = steps * tokens_per_step(plan)
        return self.token * tokens + self.tasks.between(plan, 0, steps) + self.tasks.at_the_end

    def examining(self, plan: Plan) -> float:
        """Return the seconds of evaluating every checkpoint that is kept."""
        return self.questions + (num_checkpoints(plan) + NULLS) * self.answers

    def whole(self, plan: Plan) -> float:
        return OVERHEAD_SECONDS + self.training(plan) + self.examining(plan)


def num_checkpoints(plan: Plan) -> int:
    """Return how many checkpoints a finished run of this plan has."""
    train = plan.settings.train
    steps = train.steps
    return sum(is_never_pruned(step, train.keep_every) for step in range(steps + 1)) + train.keep_checkpoints


def task_costs(plan: Plan) -> TaskCosts:
    """Measure an evaluation, a sample and a checkpoint of the plan by doing each."""
    state = initial_state(plan)
    sample = sample_task(plan)
    with TemporaryDirectory() as name:
        tokenizer = Path(name) / "tokenizer"
        plan.data.tokenizer.save(tokenizer)
        return TaskCosts(
            _seconds(lambda: validation_text(plan).score(state.model)),
            _seconds(lambda: sample(state)),
            _seconds(
                lambda: save_checkpoint(
                    Path(mkdtemp(dir=name)), Snapshot.of(state), plan.model, tokenizer, card=""
                )
            ),
        )


def _seconds(do: Callable[[], object]) -> float:
    """Time the second call: the first also allocates memory and imports modules."""
    do()
    begin = time.perf_counter()
    do()
    return time.perf_counter() - begin
