"""``--time`` from a base model, on simulated machines: its network is given, and its steps fill the time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from itertools import product
from typing import Any

import pytest
from rich.console import Console
from test_time_budget import BUDGETS, FakeMachine, SimulatedRun, quiet_phases, with_tokens

from etude.config import Settings, with_values
from etude.data.prepared_data import PreparedData
from etude.errors import InputError
from etude.model.config import ModelConfig
from etude.model.cost import training_flops_per_token
from etude.plan.base_steps import choose_steps
from etude.plan.base_values import BASE_EPOCHS, BASE_RATES, EVALUATIONS, WORTH_COMPILING
from etude.plan.measuring import tokens_per_step
from etude.plan.plan import plan_on
from etude.plan.time_budget import SHARE, TimedPlan
from etude.train.run_text import text_with_progress
from networks import make_config

BASE = make_config("llama", vocab_size=300, hidden_size=128, num_hidden_layers=6, max_position_embeddings=512)


@pytest.fixture
def left_open(small_settings: Settings) -> Settings:
    given = Settings().model_dump()
    changes: Mapping[str, Any] = {
        f"{section}.{key}": value for section in ("model", "train") for key, value in given[section].items()
    }
    return with_values(small_settings, {**changes, "model.base": "base", "train.seconds": 60.0})


@pytest.fixture
def text(small_settings: Settings, console: Console) -> PreparedData:
    return text_with_progress(small_settings, console)


def timed(
    text: PreparedData, settings: Settings, machine: FakeMachine, seconds: float, base: ModelConfig = BASE
) -> TimedPlan:
    settings = with_values(settings, {"tokenizer.vocab_size": "auto"})
    phases = quiet_phases(machine, seconds)
    return choose_steps(text, settings, base, machine.clock + seconds, phases, machine=machine)


@pytest.mark.parametrize("seconds", BUDGETS)
def test_the_time_is_kept_and_used(
    text: PreparedData, left_open: Settings, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    speeds = [(0.3, 1.0), (1.0, 1.0), (2.0, 2.0), (10.0, 3.0), (60.0, 3.0)]
    for (slow, beside), tokens in product(speeds, (30_000, 100_000_000)):
        machine = FakeMachine(slow, beside)
        with monkeypatch.context() as patch:
            patch.setattr(time, "monotonic", machine.now)
            began = machine.clock
            plan = timed(with_tokens(text, tokens), left_open, machine, seconds)
            run = SimulatedRun(machine, plan)
            step = machine.step_seconds(plan.plan)
            run.begin()
            uncut = 3 * step + (0.3 + 0.18) * beside + machine.evaluation_seconds(plan.plan)
            assert machine.clock - began <= SHARE * seconds + uncut
            steps = run.train()
        assert plan.plan.model == BASE
        assert plan.plan.expected is None
        assert machine.clock - began <= seconds + step + machine.evaluation_seconds(plan.plan)
        if steps < plan.deadline.most_steps:
            assert machine.clock - began >= 0.8 * seconds - 2 * step - 4 * beside


def test_the_text_is_not_read_more_often_than_without_a_time(text: PreparedData, left_open: Settings) -> None:
    plan = timed(with_tokens(text, 30_000), left_open, FakeMachine(slow=0.1), 600)
    train = plan.plan.settings.train
    assert train.steps == BASE_EPOCHS * 30_000 // tokens_per_step(plan.plan)
    assert plan.time_left_over > 60
    assert plan.deadline.most_steps == train.steps
    reasons = plan.plan.resolution.reasons
    assert reasons["train.steps"] == "as many as fit the time"
    assert train.eval_every == max(1, train.steps // EVALUATIONS)  # follows from the steps
    assert train.lr == BASE_RATES["train.lr"].value


def test_a_longer_time_is_more_steps(text: PreparedData, left_open: Settings) -> None:
    steps = [
        timed(with_tokens(text, 100_000_000), left_open, FakeMachine(), seconds).plan.settings.train.steps
        for seconds in (60, 120, 600)
    ]
    assert 1 < steps[0] < steps[1] < steps[2] / 3


def test_a_machine_too_slow_to_time_a_step_is_estimated(text: PreparedData, left_open: Settings) -> None:
    machine = FakeMachine(slow=400.0, products=0.4)
    plan = timed(with_tokens(text, 100_000_000), left_open, machine, 60)
    assert machine.steps == 0
    assert plan.plan.settings.train.steps == 1


def test_a_time_that_the_text_used_up_is_refused(text: PreparedData, left_open: Settings) -> None:
    with pytest.raises(InputError, match="it is prepared now"):
        timed(text, left_open, FakeMachine(), 4)


@pytest.mark.parametrize(
    ("tokens", "dropout", "compiled"),
    [(100_000_000, "auto", True), (100_000_000, 0.1, False), (30_000, "auto", False)],
)
def test_a_run_is_compiled_where_its_updates_are_worth_it(
    text: PreparedData, left_open: Settings, tokens: int, dropout: float | str, compiled: bool
) -> None:
    changes = {
        "device.compile": "auto",
        "train.dropout": dropout,
        "train.seconds": "auto",
        "tokenizer.vocab_size": "auto",
    }
    settings = with_values(left_open, changes)
    plan = plan_on(with_tokens(text, tokens), settings, base=BASE)
    work = training_flops_per_token(BASE, plan.settings.train.context, causal=True) * tokens * BASE_EPOCHS
    assert (work > WORTH_COMPILING) == (tokens > 30_000)
    assert plan.settings.device.compile == ("auto" if compiled else False)
    assert plan.compiled_layers == (BASE.num_hidden_layers if dropout == 0.1 else 2)
