"""Etude as a contestant: the only module of the benchmarks that knows how its training is put together."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console

from etude.config import Settings, load_settings, resolved
from etude.train.compilation import compile_objective
from etude.train.loop import Loop, TrainState
from etude.train.plan import Plan, initial_state, next_token_objective
from etude.train.validation import ValidationText
from etude.workflow.plan import make_plan


class Training:
    """A plan about to be trained, compiled as a run of it would be."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.state: TrainState = initial_state(plan)
        objective = next_token_objective(plan, self.state)
        begin = time.perf_counter()
        problem = compile_objective(objective, self.state.model, plan.device, plan.settings.device.compile)
        self.compiled = problem is None
        self.compile_seconds = time.perf_counter() - begin if self.compiled else 0.0
        self.num_steps = objective.num_steps
        self.tokens_per_step = objective.tokens_per_step
        self._loop = Loop(self.state, objective, plan.settings.train, plan.device)

    def step(self) -> None:
        """One step of optimisation."""
        self._loop.one_step()


def settings_of(sources: Sequence[str], overrides: Sequence[str]) -> Settings:
    return load_settings(None, list(overrides), {"data.sources": tuple(sources)})


def quiet_plan(settings: Settings) -> Plan:
    """The plan, with nothing shown; the text is prepared, or found prepared in the cache."""
    return make_plan(settings, Console(file=io.StringIO()))


def time_to_loss(
    sources: Sequence[str], overrides: Sequence[str], eval_every: int = 50, max_steps: int | None = None
) -> Callable[[], dict[str, Any]]:
    """A whole training; every ``eval_every`` steps the whole validation part is scored, off the clock."""
    plan = quiet_plan(settings_of(sources, overrides))
    validation = ValidationText(
        plan.data.validation, resolved(plan.settings.train.context, "train.context"), plan.device
    )

    def one_round() -> dict[str, Any]:
        training = Training(plan)
        state, seconds, curve = training.state, 0.0, []
        num_steps = min(training.num_steps, max_steps or training.num_steps)
        while state.step < num_steps:
            begin = time.perf_counter()
            for _ in range(min(eval_every, num_steps - state.step)):
                training.step()
            plan.device.synchronize()
            seconds += time.perf_counter() - begin
            score = validation.score(state.model)
            curve.append((state.step, seconds, score.loss, score.bits_per_byte))
        return {
            "train_seconds": seconds,
            "compile_seconds": training.compile_seconds,
            "seconds_per_step": seconds / state.step,
            "final_loss": curve[-1][2],
            "final_bits_per_byte": curve[-1][3],
            "steps": state.step,
            "tokens": state.tokens_seen,
            "parameters": sum(parameter.numel() for parameter in state.model.parameters()),
            "curve": curve,
        }

    return one_round
