"""``--time`` on simulated machines: errors, the chosen size, and whether the time is kept."""

from __future__ import annotations

import dataclasses
import io
import json
import time
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from etude.config import Settings, with_values
from etude.data.prepared_data import PreparedData
from etude.device import Device
from etude.errors import InputError
from etude.plan import busy_cores as cores
from etude.plan.busy_cores import threads_for_time
from etude.plan.cadence import evaluation_due, sample_due, save_due
from etude.plan.derivation import MAX_EPOCHS
from etude.plan.measuring import step_flops, tokens_per_step
from etude.plan.pace import Pace
from etude.plan.plan import Plan, plan_on
from etude.plan.sizes import SHAPES, Size
from etude.plan.time_budget import SHARE, TimedPlan, choose_size, require_time
from etude.show.phases import Phases
from etude.train.compilation import expected_compile_seconds
from etude.train.run_text import text_with_progress
from etude.workflow import fit, jobs
from etude.workflow import prepare as plan
from etude.workflow.prepare import make_plan

BUDGETS = [20.0, 60.0, 120.0, 180.0, 600.0]


@pytest.fixture
def timed_settings(small_settings: Settings) -> Settings:
    left_open = (
        "train.steps",
        "train.context",
        "train.batch_rows",
        "train.eval_every",
        "train.sample_every",
        "train.checkpoint_every",
        "train.eval_tokens",
        "model.size",
        "model.hidden_size",
        "device.compile",
    )
    return with_values(small_settings, {"train.seconds": 60.0, **dict.fromkeys(left_open, "auto")})


@dataclass
class FakeMachine:
    """A simulated machine with its own clock: updates take ``slow`` times as long as if idle, all else ``beside``.

    An idle one makes 50 GFLOP/s in a step, and needs 20 ms for each besides; ``products`` is how many times as fast
    a matrix product alone is.
    """

    slow: float = 1.0
    beside: float = 1.0
    warm: bool = False
    products: float = 4.0
    flops: float = 5e10
    clock: float = 1000.0
    steps: int = 0

    def now(self) -> float:
        return self.clock

    def slowdown(self) -> float:
        return self.beside

    def product_rate(self, device: Device) -> float:
        self.clock += 0.03
        return self.products * self.flops / self.slow

    def compiled_before(self, plan: Plan) -> bool:
        return self.warm

    def trial(self, plan: Plan) -> FakeTrial:
        self.clock += 0.01 * self.beside
        return FakeTrial(self, plan)

    def step_seconds(self, plan: Plan) -> float:
        return self.slow * (0.02 + step_flops(plan) / self.flops)

    def evaluation_seconds(self, plan: Plan) -> float:
        tokens = min(plan.settings.train.eval_tokens, plan.data.validation.num_tokens)
        return self.step_seconds(plan) * tokens / tokens_per_step(plan) / 3


@dataclass
class FakeTrial:
    machine: FakeMachine
    plan: Plan
    made: int = 0

    def step(self) -> None:
        self.made += 1
        self.machine.steps += 1
        first = 3.0 if self.made == 1 else 1.0
        self.machine.clock += first * self.machine.step_seconds(self.plan)

    def bits_per_byte(self) -> float:
        self.machine.clock += self.machine.evaluation_seconds(self.plan)
        return 5.0 * (self.made * tokens_per_step(self.plan)) ** -0.08


def with_tokens(data: PreparedData, tokens: int) -> PreparedData:
    """The same text with another declared length: a simulated machine does not read it."""
    part: Any = SimpleNamespace(num_tokens=tokens, source_bytes=3 * tokens, examples=None)
    held_out: Any = SimpleNamespace(num_tokens=60_000, source_bytes=180_000)
    return dataclasses.replace(data, train=part, validation=held_out)


def quiet_phases(machine: FakeMachine, seconds: float) -> Phases:
    return Phases(Console(file=io.StringIO()), machine.clock, seconds, machine.now)


def plan_for(data: PreparedData, settings: Settings, machine: FakeMachine, seconds: float) -> TimedPlan:
    return choose_size(
        data, settings, machine.clock + seconds, quiet_phases(machine, seconds), machine=machine
    )


@dataclass
class SimulatedRun:
    """The run after its planning, on the same clock, as ``fit.fit`` and ``Loop.run`` do it."""

    machine: FakeMachine
    timed: TimedPlan
    compiler: float = 1.0
    """Time of compilation relative to the expected time."""

    @cached_property
    def plan(self) -> Plan:
        return self.timed.plan

    def begin(self) -> None:
        """Self-test, compiler, and the tasks of step 0. The n-gram models count as preparation of the text."""
        machine, deadline = self.machine, self.timed.deadline
        machine.clock += 0.3 * machine.beside
        if self.plan.settings.device.compile is not False:
            expected = expected_compile_seconds(self.plan.compiled_layers, warm=machine.warm)
            seconds = self.compiler * machine.beside * expected
            machine.clock += min(seconds, max(0.0, deadline.compile_until - machine.clock))
        self.do("evaluation", machine.evaluation_seconds(self.plan))
        self.do("sample", 0.08 * machine.beside)
        self.do("checkpoint", 0.1 * machine.beside)

    def do(self, name: Any, seconds: float) -> None:
        self.machine.clock += seconds
        self.timed.deadline.costs.note(name, seconds)

    def train(self, later: float = 1.0) -> int:
        """Simulate steps and tasks, ``later`` times as long from the middle on. Returns the number of steps."""
        machine, deadline, train = self.machine, self.timed.deadline, self.plan.settings.train
        pace, num_steps, step, since = Pace(deadline), train.steps, 0, 0.0
        silence = deadline.silence
        dues = (evaluation_due(train), sample_due(train), save_due(train))
        middle = machine.clock + (deadline.ends_at - machine.clock) / 2
        while step < num_steps:
            times = later if machine.clock > middle else 1.0
            step += 1
            machine.clock += times * machine.step_seconds(self.plan)
            since += times * machine.step_seconds(self.plan)
            if (step % train.log_every == 0 or since > silence) and step < num_steps:
                num_steps = pace(step, num_steps, since) or num_steps
                since = 0.0
            costs = (machine.evaluation_seconds(self.plan), 0.08 * machine.beside, 0.1 * machine.beside)
            for name, seconds, due in zip(("evaluation", "sample", "checkpoint"), costs, dues, strict=True):
                if step == num_steps or due(step):
                    self.do(name, times * seconds)
        until = deadline.samples_until
        if machine.clock < until:
            machine.clock += times * machine.beside  # what was saved is loaded
        for _ in range(3):
            if machine.clock < until:
                machine.clock += 0.1 * times * machine.beside
        return step


@pytest.mark.parametrize("seconds", BUDGETS)
@pytest.mark.parametrize("warm", [False, True])
def test_a_time_is_kept_and_a_fifth_of_it_is_spent_before_step_1(
    timed_settings: Settings,
    console: Console,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    warm: bool,
) -> None:
    settings = with_values(timed_settings, {"train.seconds": seconds})
    prepared = text_with_progress(settings, console)
    speeds = [(0.3, 1.0), (1.0, 1.0), (2.0, 2.0), (10.0, 3.0), (60.0, 3.0)]
    for (slow, beside), (tokens, compiler) in product(speeds, ((400_000, 10.0), (100_000_000, 0.5))):
        data, machine = with_tokens(prepared, tokens), FakeMachine(slow, beside, warm)
        with monkeypatch.context() as patch:
            patch.setattr(time, "monotonic", machine.now)
            began, preparing = machine.clock, 2.0 * beside
            machine.clock += preparing
            timed = plan_for(data, settings, machine, seconds - preparing)
            run = SimulatedRun(machine, timed, compiler)
            run.begin()
            # What cannot be cut: an update of the narrowest shape, the self-test, the tasks of step 0.
            nano = machine.step_seconds(plan_on(data, settings, Size(SHAPES[0], 131_072)))
            uncut = 3 * nano + (0.3 + 0.18) * beside + machine.evaluation_seconds(timed.plan)
            spent = machine.clock - began - preparing
            assert spent <= SHARE * (seconds - preparing) + uncut
            steps = run.train()
        step = machine.step_seconds(timed.plan)
        assert machine.clock - began <= seconds + step
        if steps < timed.deadline.most_steps:  # the time is used, unless the text is read out
            assert machine.clock - began >= 0.85 * seconds - 2 * step - 4 * beside


@pytest.mark.parametrize("seconds", BUDGETS)
@pytest.mark.parametrize("later", [0.3, 3.0])
def test_a_time_is_kept_when_other_programs_come_or_go(
    timed_settings: Settings,
    console: Console,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    later: float,
) -> None:
    settings = with_values(timed_settings, {"train.seconds": seconds})
    data = with_tokens(text_with_progress(settings, console), 100_000_000)
    machine = FakeMachine(slow=2.0)
    monkeypatch.setattr(time, "monotonic", machine.now)
    began = machine.clock
    run = SimulatedRun(machine, plan_for(data, settings, machine, seconds))
    run.begin()
    run.train(later)
    # Closing work is foreseen as slow as the same work was when it was done last.
    assert machine.clock - began <= seconds * 1.02 + later * (2 + machine.step_seconds(run.plan))


def test_a_time_that_is_too_short_for_any_run_is_refused_at_once(
    timed_settings: Settings, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "text_with_progress", lambda *_: pytest.fail("the text was prepared"))
    with pytest.raises(InputError, match="a run takes at least 10 s"):
        make_plan(with_values(timed_settings, {"train.seconds": 9.0}), console)
    require_time(20.0)


def test_a_time_that_the_text_used_up_is_refused_with_what_is_left(
    timed_settings: Settings, console: Console
) -> None:
    data, machine = text_with_progress(timed_settings, console), FakeMachine()
    phases = Phases(console, machine.clock - 56, 60.0, machine.now)
    with pytest.raises(InputError, match="left 0:04 of the 1:00; it is prepared now, so the same command"):
        choose_size(data, timed_settings, machine.clock + 4, phases, machine=machine)
    assert machine.steps == 0


def test_shapes_are_tried_from_narrow_to_wide_until_they_stop_improving(
    timed_settings: Settings, console: Console
) -> None:
    data = with_tokens(text_with_progress(timed_settings, console), 10_000_000)
    timed = plan_for(data, timed_settings, FakeMachine(), 300)
    considered = [candidate.shape for candidate in timed.candidates]
    assert considered == list(SHAPES[: len(considered)])
    losses = [candidate.expected.middle for candidate in timed.candidates if candidate.expected]
    assert len(losses) == len(considered)
    assert timed.shape == considered[losses.index(min(losses))]
    assert timed.plan.model.hidden_size == timed.shape.hidden_size
    expected = timed.plan.expected
    assert expected is not None
    assert expected.low < expected.middle < expected.high


def test_a_faster_machine_takes_a_wider_shape(timed_settings: Settings, console: Console) -> None:
    data = with_tokens(text_with_progress(timed_settings, console), 10_000_000)
    widths = [plan_for(data, timed_settings, FakeMachine(slow), 600).shape for slow in (3, 0.3, 0.03)]
    assert widths == sorted(widths, key=lambda shape: shape.hidden_size)
    assert len(set(widths)) == 3


def test_without_time_to_try_shapes_the_configuration_decides(
    timed_settings: Settings, console: Console
) -> None:
    data = with_tokens(text_with_progress(timed_settings, console), 10_000_000)
    machine = FakeMachine(slow=200.0, beside=5.0, products=0.4)
    timed = plan_for(data, timed_settings, machine, 60)
    assert machine.steps == 0
    assert timed.plan.expected is None
    assert timed.shape == SHAPES[0]
    assert timed.plan.settings.device.compile is False


def test_a_longer_time_tries_more(timed_settings: Settings, console: Console) -> None:
    """The shorter the pilot, the wider the band of the forecast."""
    data = with_tokens(text_with_progress(timed_settings, console), 10_000_000)
    bands = []
    for seconds in (100, 600):
        expected = plan_for(data, timed_settings, FakeMachine(slow=0.3), seconds).plan.expected
        assert expected is not None
        bands.append((expected.high - expected.low) / expected.middle)
    assert bands[0] > bands[1]


@pytest.mark.parametrize(
    ("seconds", "beside", "warm", "compiled"),
    [
        (60, 1.0, True, False),  # too short by the dial's rule
        (120, 1.0, True, True),
        (120, 1.0, False, False),
        (600, 1.0, False, True),
        (600, 5.0, False, False),
        (600, 5.0, True, True),
    ],
)
def test_it_compiles_where_that_is_expected_to_fit(
    timed_settings: Settings, console: Console, seconds: float, beside: float, warm: bool, compiled: bool
) -> None:
    settings = with_values(timed_settings, {"train.seconds": float(seconds)})
    data = with_tokens(text_with_progress(settings, console), 10_000_000)
    timed = plan_for(data, settings, FakeMachine(beside=beside, warm=warm), seconds)
    assert (timed.plan.settings.device.compile is not False) == compiled
    if not compiled and seconds > 90:
        assert "compiling would take about" in timed.plan.resolution.reasons["device.compile"]


def test_fewer_threads_where_other_programs_are_busy(
    timed_settings: Settings, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cores, "available_cores", lambda: 4)
    monkeypatch.setattr(cores, "busy_cores", lambda: 2.9)
    left_open = with_values(timed_settings, {"device.threads": "auto"})
    derived = threads_for_time(left_open)
    assert derived["device.threads"] == (
        1,
        "other programs keep about 2.9 of the 4 cores busy, so it trains on 1",
    )
    made = plan_on(
        text_with_progress(left_open, console), left_open, Size(SHAPES[0], 100_000), derived=derived
    )
    assert made.settings.device.threads == made.device.threads == 1
    assert "2.9 of the 4 cores" in made.resolution.reasons["device.threads"]
    assert threads_for_time(timed_settings) == {}, "what the user set stays"
    monkeypatch.setattr(cores, "busy_cores", lambda: 0.3)
    assert threads_for_time(left_open) == {}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    """Replace the planning of a real run by that on a simulated machine which is fast enough for the whole text."""
    machine = FakeMachine(slow=0.1, clock=time.monotonic())
    original = choose_size

    def choose(*arguments: Any) -> TimedPlan:
        machine.clock = time.monotonic()
        return original(*arguments, machine=machine)

    monkeypatch.setattr(plan, "choose_size", choose)
    return machine


def test_a_run_with_a_time_budget_stores_its_settings_and_reports_its_forecast(
    timed_settings: Settings, console: Console, fake: FakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real run of a few steps, whose pace does not check the clock."""
    monkeypatch.setattr(fit, "Pace", lambda deadline: lambda step, steps, seconds: 25 if step == 9 else None)
    values = {"train.seconds": 3600.0, "model.size": "nano", "device.compile": False}
    outcome = jobs.grow(with_values(timed_settings, values), console)
    assert (outcome.reason, outcome.step) == ("finished", 25)
    recorded = json.loads(outcome.run.manifest_file.read_text())
    low, middle, high = recorded["expected_bits_per_byte"]
    assert 0 < low < middle < high
    assert "lowest loss expected in the time" in recorded["derived"]["model.hidden_size"]["reason"]
    # A text of some 20,000 tokens is not read more often than the rule says, whatever the time.
    planned = recorded["derived"]["train.steps"]["value"]
    rows, context = (recorded["derived"][f"train.{key}"]["value"] for key in ("batch_rows", "context"))
    assert planned * rows * context == pytest.approx(MAX_EPOCHS * recorded["train_tokens"], rel=0.05)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "this text has nothing more to teach" in printed
    assert "Asked for 1:00:00, took" in printed
    assert "expected at the end:" in printed
    for phase in ("preparing the text", "training two small pilots", "timing wider networks", "training\n"):
        assert f" of 60:00   {phase}" in printed
