"""``--time`` for conversations, on simulated machines: the time is kept with its report, and what is chosen for it."""

from __future__ import annotations

import dataclasses
import time
import tracemalloc
from collections.abc import Mapping
from typing import Any

import pytest
from rich.console import Console
from test_time_budget import FakeMachine, SimulatedRun, quiet_phases

from etude.config import Settings, with_values
from etude.data.prepared_data import PreparedData
from etude.errors import InputError
from etude.evaluate.tuning.report_work import report_work
from etude.plan.base_steps import choose_steps
from etude.plan.base_values import BASE_UPDATES, CONVERSATION_EPOCHS, EVALUATIONS
from etude.plan.measuring import tokens_per_step
from etude.plan.plan import Plan, plan_on
from etude.plan.time_budget import TimedPlan
from etude.plan.tuning_time import choose_tuning, describe_choices
from etude.plan.tuning_values import CHOICES, LEAST_QUESTIONS, LEAST_UPDATES
from etude.train.run_text import text_with_progress
from etude.train.schedule import lr_factor
from example_parts import part_of
from networks import make_config

BASE = make_config(
    "llama", vocab_size=300, hidden_size=128, num_hidden_layers=6, max_position_embeddings=1024
)


@pytest.fixture
def left_open(small_settings: Settings) -> Settings:
    given = Settings().model_dump()
    changes: Mapping[str, Any] = {
        f"{section}.{key}": value for section in ("model", "train") for key, value in given[section].items()
    }
    changes |= {
        "model.base": "base",
        "tokenizer.vocab_size": "auto",
        "train.objective": "conversation",
        "data.cross_document_attention": False,
    }
    return with_values(small_settings, changes)


@pytest.fixture
def text(small_settings: Settings, console: Console) -> PreparedData:
    return text_with_progress(small_settings, console)


def conversations(text: PreparedData, count: int, length: int = 40, held_out: int = 24) -> PreparedData:
    return dataclasses.replace(text, train=part_of(count, length), validation=part_of(held_out, length))


def timed(data: PreparedData, settings: Settings, machine: FakeMachine, seconds: float) -> TimedPlan:
    settings = with_values(settings, {"train.seconds": seconds})
    phases, until = quiet_phases(machine, seconds), machine.clock + seconds
    return choose_tuning(data, settings, BASE, until, phases, report_work(data), machine=machine)


def report_seconds(machine: FakeMachine, promise: TimedPlan, questions: int) -> float:
    """The report on the simulated machine: a token takes as long as in an evaluation, and 0.8 ms to generate."""
    costs, plan = promise.deadline.costs, promise.plan
    assert costs.report is not None
    token = machine.evaluation_seconds(plan) / costs.evaluated_tokens
    return costs.report.seconds(questions, token, 0.0008 * machine.beside)


@pytest.mark.parametrize(
    ("seconds", "slow", "beside"),
    [(60.0, 0.3, 1.0), (600.0, 0.3, 1.0), (600.0, 10.0, 2.0), (2400.0, 60.0, 3.0)],
)
def test_the_time_is_kept_with_the_report(
    text: PreparedData,
    left_open: Settings,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    slow: float,
    beside: float,
) -> None:
    machine = FakeMachine(slow, beside)
    monkeypatch.setattr(time, "monotonic", machine.now)
    began = machine.clock
    promise = timed(conversations(text, 20_000), left_open, machine, seconds)
    run = SimulatedRun(machine, promise)
    step = machine.step_seconds(promise.plan)
    run.begin()
    steps = run.train()
    assert steps >= LEAST_UPDATES - 2
    questions = promise.deadline.questions
    assert questions is not None
    assert questions >= LEAST_QUESTIONS
    machine.clock += report_seconds(machine, promise, questions)
    assert machine.clock - began <= 1.02 * seconds + step + 2 * beside
    if steps < promise.deadline.most_steps:
        assert machine.clock - began >= 0.7 * seconds


def passes_of(plan: Plan) -> float:
    return plan.settings.train.steps * tokens_per_step(plan) / plan.pass_tokens


def test_as_many_passes_as_fit_up_to_the_usual_number(text: PreparedData, left_open: Settings) -> None:
    data = conversations(text, 2_000)
    plenty = timed(data, left_open, FakeMachine(slow=0.1), 1200)
    assert passes_of(plenty.plan) == pytest.approx(CONVERSATION_EPOCHS, rel=0.05)
    assert plenty.time_left_over > 60
    assert plenty.plan.settings.train.lora_rank == CHOICES[-1].rank
    some = timed(data, left_open, FakeMachine(slow=8), 600)
    assert 1 < passes_of(some.plan) < CONVERSATION_EPOCHS
    few = timed(data, left_open, FakeMachine(slow=40), 600)
    assert passes_of(few.plan) < 1
    assert few.plan.settings.train.lora_rank == CHOICES[0].rank
    assert few.plan.settings.train.batch_rows <= some.plan.settings.train.batch_rows
    lines = ["\n".join(describe_choices(promise)) for promise in (plenty, some, few)]
    assert f"{CONVERSATION_EPOCHS} passes over 2,000 conversations, the usual number" in lines[0]
    assert f"of the usual {CONVERSATION_EPOCHS} passes" in lines[1]
    assert "of 2,000 conversations fit the time, each read once" in lines[2]
    for line in ("train.lora_rank = ", "train.lr = ", "train.batch_rows = ", "report at the end: "):
        assert all(line in printed for printed in lines)


def test_what_the_user_names_stays(text: PreparedData, left_open: Settings) -> None:
    data = conversations(text, 200)
    for named in ({"train.lora_rank": 0}, {"train.only": "layers.5"}):
        plan = timed(data, with_values(left_open, named), FakeMachine(slow=0.1), 300).plan
        assert plan.model.adapter is None
    named = {"train.lora_rank": 4, "train.lr": 1e-3, "train.batch_rows": 3, "train.eval_every": 7}
    train = timed(data, with_values(left_open, named), FakeMachine(slow=0.1), 300).plan.settings.train
    assert (train.lora_rank, train.lr, train.batch_rows, train.eval_every) == (4, 1e-3, 3, 7)


def test_evaluations_and_questions_are_fewer_where_they_take_long(
    text: PreparedData, left_open: Settings
) -> None:
    data = conversations(text, 2_000, held_out=100)
    fast, slow = (timed(data, left_open, FakeMachine(slow=times), 600) for times in (0.2, 30))
    every = [promise.plan.settings.train.eval_every for promise in (fast, slow)]
    steps = [promise.plan.settings.train.steps for promise in (fast, slow)]
    assert steps[0] // every[0] >= EVALUATIONS > steps[1] // every[1] >= 1
    asked = [promise.deadline.costs.questions_in(120) for promise in (fast, slow)]
    assert asked[0] > asked[1] >= LEAST_QUESTIONS


def test_a_time_that_cannot_be_kept_is_refused_with_one_that_can(
    text: PreparedData, left_open: Settings
) -> None:
    data = conversations(text, 2_000)
    with pytest.raises(InputError, match=r"is too short .* give --time \d+s or more") as refused:
        timed(data, left_open, FakeMachine(slow=100), 30)
    enough = float(str(refused.value).rsplit("--time ", 1)[1].split("s")[0])
    assert enough > 30
    assert (
        timed(data, left_open, FakeMachine(slow=100), enough).plan.settings.train.steps >= LEAST_UPDATES - 1
    )


def test_pairs_leave_time_to_score_them_with_the_base(text: PreparedData, left_open: Settings) -> None:
    parts = []
    for count in (40_000, 100):
        part = part_of(count, 40)
        assert part.examples is not None
        examples = dataclasses.replace(part.examples, rejected=part.documents[:-1] + 20)
        parts.append(dataclasses.replace(part, examples=examples))
    data = dataclasses.replace(text, train=parts[0], validation=parts[1])
    machine = FakeMachine()
    settings = with_values(left_open, {"train.objective": "preference", "train.seconds": 600.0})
    promise = choose_steps(
        data, settings, BASE, machine.clock + 600, quiet_phases(machine, 600), None, machine
    )
    train, costs = promise.plan.settings.train, promise.deadline.costs
    scoring = parts[0].num_tokens * costs.evaluation / costs.evaluated_tokens
    assert scoring > 100
    assert scoring + train.steps * machine.step_seconds(promise.plan) < 600


@pytest.mark.parametrize("count", [10, 40, 168, pytest.param(200_000, marks=pytest.mark.slow)])
def test_steps_passes_and_schedule_agree_for_few_and_many(
    text: PreparedData, left_open: Settings, count: int
) -> None:
    plan = plan_on(conversations(text, count), left_open, base=BASE)
    train = plan.settings.train
    assert passes_of(plan) == pytest.approx(CONVERSATION_EPOCHS, rel=0.05)
    assert train.steps >= min(BASE_UPDATES, CONVERSATION_EPOCHS * count)
    assert train.batch_rows * train.context <= 2048
    factors = [lr_factor(step, train) for step in range(1, train.steps + 1)]
    assert min(factors) > 0
    assert factors[-1] <= 2 / train.steps
    assert max(factors) > 0.9


def test_memory_of_planning_is_bounded_by_the_number_of_conversations(
    text: PreparedData, left_open: Settings
) -> None:
    data = conversations(text, 4_000, length=200)
    tracemalloc.start()
    plan_on(data, left_open, base=BASE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20 + 600 * 4_000
