"""``--time``: choose the size with the lowest expected loss that this machine can train in the given time.

Planning takes at most the fraction ``SHARE`` of the time, after the text is prepared. Each part of it checks the clock
and is cut short:

1. Train two pilots of the narrowest shape on the text itself, as long as time allows. Without them the loss is not
   forecast; nothing else changes.
2. Time wider shapes, a few updates each, until two in a row do not improve the expected loss. Without time to try a
   shape, estimate its speed from the others by FLOPs; if none could be tried, from the rate of a matrix product.
3. Give the best shape as many steps as fit the time. Compile it if compilation is expected to fit. Errors of these
   estimates are corrected while the run trains (:mod:`etude.plan.pace`).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from rich.table import Table

from etude.config import Settings
from etude.data.prepared_data import PreparedData
from etude.device import place_in_run
from etude.errors import InputError
from etude.model.cost import count_parameters
from etude.plan.base_values import base_epochs
from etude.plan.cadence import SCORING
from etude.plan.derivation import MAX_EPOCHS, Derived
from etude.plan.forecast import LEAST_PILOT, LONG_PILOT, Forecast, Pilot, forecast, potential
from etude.plan.measuring import Machine, ThisMachine, Trial, step_flops, tokens_per_step
from etude.plan.pace import Deadline
from etude.plan.plan import Plan, plan_on
from etude.plan.sizes import SHAPES, SIZES, Shape, Size
from etude.plan.task_costs import TaskCosts
from etude.show.phases import Phases, clock_time
from etude.train.compilation import expected_compile_seconds
from etude.train.objectives.next_token import NEXT_TOKEN

SHARE = 0.2
"""Largest fraction of the time for everything before step 1, after the text is prepared."""
PILOTS_UNTIL, SHAPES_UNTIL, TIMING_UNTIL = 0.6, 0.75, 0.85
"""Fractions of that share by which each part must end. The rest is for self-test, compiler and the tasks of step 0."""
SHORTEST, LEAST_LEFT = 10.0, 5.0
"""Shortest time of a run, and shortest time left once the text is prepared, in seconds."""
MARGIN = 0.01
"""Fraction of the time that a run plans to end early."""
TIMED_STEPS = 4
"""Updates to time a shape; the first also allocates memory."""
TRIAL_TOKENS = 2_300_000
"""Length of the run that determines the batch of a shape while it is timed."""
EFFICIENCY = 0.25
"""Assumed FLOP rate of a step, relative to that of a matrix product, before any step was timed."""
IN_STEPS = 0.85
"""Assumed fraction of the time in steps, while shapes are compared."""
CAREFUL = 0.85
"""Fraction of the pilots' time that is planned for them."""
SELF_TEST_SECONDS, LADDER_SECONDS_A_MB = 0.4, 0.25
"""Estimates for the self-test, and for the n-gram models by megabyte of text."""
CLOSING_SHARE = 0.15
"""Largest fraction of the time for the report at the end."""
COMPILED_GAIN = 1.25
"""Assumed speedup of a compiled step, until it is measured."""
EVALUATION_SHARE, LEAST_EVAL_TOKENS = 0.01, 1024
"""Largest fraction of the time for one evaluation, and its fewest tokens."""


@dataclass(frozen=True)
class Candidate:
    """A shape, the tokens that it can train on in the time, and its expected loss."""

    shape: Shape
    tokens: int
    gain: float
    """The larger, the lower the expected loss: :func:`etude.plan.forecast.potential`."""
    expected: Forecast | None


@dataclass(frozen=True)
class TimedPlan:
    """The result of planning with a time budget."""

    plan: Plan
    candidates: Sequence[Candidate]
    deadline: Deadline
    time_left_over: float
    """Seconds that are not used, because reading the text more often would not help."""

    def table(self) -> Table:
        """Return a table of the candidates with their expected losses."""
        table = Table(
            "",
            "width",
            "layers",
            "tokens in the time",
            "expected bits per byte",
            box=None,
            header_style="bold",
        )
        has_forecast = self.plan.settings.train.objective == NEXT_TOKEN
        missing = "no time for a forecast" if has_forecast else f"forecast for {NEXT_TOKEN} only"
        for candidate in self.candidates:
            shape, loss = candidate.shape, candidate.expected
            mark = "→" if shape == self.shape else ""
            band = f"{loss.middle:.3f}  ({loss.low:.3f} to {loss.high:.3f})" if loss else missing
            table.add_row(
                mark, str(shape.hidden_size), str(shape.num_hidden_layers), f"{candidate.tokens:,}", band
            )
        return table

    @property
    def shape(self) -> Shape:
        """The best shape among the candidates."""
        return max(self.candidates, key=lambda candidate: candidate.gain).shape


def require_time(seconds: float) -> None:
    """Raise InputError for a time that is too short for any run, or for several processes."""
    if place_in_run()[1] > 1:
        raise InputError("--time measures one process: with torchrun give --size or --steps")
    if seconds < SHORTEST:
        raise InputError(
            f"a run takes at least {SHORTEST:.0f} s to start, evaluate and save: give a longer --time, or "
            "--steps without one"
        )


def require_time_left(seconds: float, phases: Phases) -> None:
    """Raise InputError if the preparation of the text left fewer ``seconds`` than any run takes."""
    if seconds < LEAST_LEFT:
        raise InputError(
            f"preparing the text left {clock_time(seconds)} of the {clock_time(phases.seconds)}; it is prepared now, "
            "so the same command has more time left when typed again, or give a longer --time"
        )


def choose_size(
    data: PreparedData,
    settings: Settings,
    deadline: float,
    phases: Phases,
    derived: Derived | None = None,
    machine: Machine | None = None,
) -> TimedPlan:
    """Choose the best size for the time until ``deadline`` (of the machine's clock).

    ``derived`` has settings that were derived before, with their reasons.

    Raises:
        InputError: less time than a run needs.
    """
    machine = machine or ThisMachine()
    require_time_left(deadline - machine.now(), phases)
    planning = Planning(data, settings, machine, deadline, dict(derived or {}))
    pilot = None
    if settings.train.objective == NEXT_TOKEN:  # the forecast was fitted to it alone
        with phases("training two small pilots on the text, to forecast the loss"):
            pilot = planning.run_pilots()
    with phases("timing wider networks"):
        candidates = planning.time_shapes(pilot)
        best = max(candidates, key=lambda candidate: candidate.gain)
        return planning.fill_time(best, candidates, pilot)


@dataclass
class Planning:
    """The choice of a size within a time limit."""

    data: PreparedData
    settings: Settings
    machine: Machine
    ends_at: float
    derived: dict[str, tuple[Any, str]]
    seconds_per_flop: float = field(init=False)  # of the most recently timed step
    _began: float = field(init=False)
    _timed: dict[tuple[int, int, bool], float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._began = self.machine.now()
        rate = self.machine.product_rate(self._plan(Size(SHAPES[0], TRIAL_TOKENS)).device)
        self.seconds_per_flop = 1 / (EFFICIENCY * rate)

    @property
    def left(self) -> float:
        """Seconds until the end of the run."""
        return self.ends_at - self.machine.now()

    def until(self, part: float = 1.0) -> float:
        """Return the seconds until the fraction ``part`` of the planning time is over."""
        return self._began + part * SHARE * (self.ends_at - self._began) - self.machine.now()

    def run_pilots(self) -> Pilot | None:
        """Train the narrowest shape twice, the second time four times as long, and score both; None without time."""
        tokens = self._pilot_tokens(LONG_PILOT.tokens, scores=2, runs=1.25)
        if tokens < LEAST_PILOT:
            return None
        short = self._pilot_plan(tokens // 4)
        first = self._train(short)
        if first is None:
            return None
        # The first pilot has measured the speed; the second gets the rest of the time.
        long = self._pilot_plan(self._pilot_tokens(tokens, scores=1, runs=1.0))
        if _tokens(long) < 3 * _tokens(short):
            return None
        second = self._train(long)
        if second is None:
            return None
        parameters = count_parameters(long.model).non_embedding
        return Pilot(first, second, parameters, _tokens(long), _tokens(short))

    def _pilot_tokens(self, most: int, scores: int, runs: float) -> int:
        """Return the tokens of the longer pilot that fit, for ``runs`` trainings and ``scores`` scorings of it."""
        plan = self._pilot_plan(most // 4)
        step = self._step_seconds(plan, self.until(PILOTS_UNTIL) / 4)
        fitting = CAREFUL * self.until(PILOTS_UNTIL) * tokens_per_step(plan) / step
        scored = plan.settings.train.eval_tokens
        return max(1, min(most, int((fitting - scores * SCORING * scored) / runs)))

    def _pilot_plan(self, tokens: int) -> Plan:
        own = Settings(
            data=self.settings.data, tokenizer=self.settings.tokenizer, device=self.settings.device
        )
        return plan_on(self.data, own, Size(SHAPES[0], tokens), derived=self.derived)

    def _train(self, plan: Plan) -> float | None:
        """Train a plan to its end. Returns its bits per byte, None if time ran out."""
        trial, first = self.machine.trial(plan), self.machine.now()
        step = 0.0
        for done in range(1, plan.settings.train.steps + 1):
            if self.until(PILOTS_UNTIL) < step:
                return None
            trial.step()
            step = (self.machine.now() - first) / done
        self._note(plan, step)
        scored = plan.settings.train.eval_tokens
        if self.until(SHAPES_UNTIL) < SCORING * scored * step / tokens_per_step(plan):
            return None
        return trial.bits_per_byte()

    def time_shapes(self, pilot: Pilot | None) -> Sequence[Candidate]:
        """Time wider and wider shapes until two in a row do not improve; estimate by FLOPs those that take too long."""
        candidates: list[Candidate] = []
        size = self.settings.model.size
        for shape in SHAPES if size == "auto" else [SIZES[size].shape]:
            try:
                plan = self._plan(Size(shape, TRIAL_TOKENS))
            except InputError:  # it does not fit the memory, nor do wider ones
                if candidates:
                    break
                raise
            rate = tokens_per_step(plan) / self._step_seconds(plan, self.until(SHAPES_UNTIL))
            fitting = rate * IN_STEPS * self.left  # less than one step where the machine is slow
            tokens = worth_reading(fitting, plan)
            parameters = count_parameters(plan.model).non_embedding
            narrow = count_parameters(self._pilot_plan(LEAST_PILOT).model).non_embedding
            gain = potential(parameters, min(tokens, fitting), self.data.train.num_tokens, narrow)
            candidates.append(Candidate(shape, tokens, gain, expected_loss(plan, pilot, tokens)))
            gains = [candidate.gain for candidate in candidates]
            if len(gains) > 2 and max(gains[-2:]) < gains[-3]:
                break
        return candidates

    def fill_time(self, best: Candidate, candidates: Sequence[Candidate], pilot: Pilot | None) -> TimedPlan:
        """Plan the best shape with as many tokens as fit the time, and return it with its deadline."""
        tokens = best.tokens
        for _ in range(2):  # the length of a run changes its batch, and so the time of a step
            size = Size(best.shape, tokens)
            plan = self._plan(size)
            step = self._step_seconds(plan, self.until(TIMING_UNTIL))
            plan = self._affordable(plan, size, step)
            compiler = self._compiler_seconds(plan, step)
            costs = self._costs(plan, step)
            if compiler is None:
                plan = self._plan(size)
            elif compiler > 0:
                step /= COMPILED_GAIN
            last = plan.settings.train.steps
            start = self._seconds_to_start(plan, costs) + (compiler or 0.0)
            besides = start + costs.between(plan, 0, last) + costs.at_the_end
            left = self.left * (1 - MARGIN) - besides
            tokens = worth_reading(left / step * tokens_per_step(plan), plan)
        self._require_updates(left, step, besides, costs)
        left_over = left - step * (tokens / tokens_per_step(plan) + 1)
        plan = self._plan(Size(best.shape, tokens))
        plan = self._plan(Size(best.shape, tokens), expected_loss(plan, pilot, tokens))
        most_steps = worth_reading(math.inf, plan) // tokens_per_step(plan)
        deadline = Deadline(
            self.ends_at - MARGIN * self.left,
            costs,
            partial(costs.between, plan),
            most_steps,
            compile_until=self.machine.now() + self.until() - costs.each_once,
        )
        return TimedPlan(plan, candidates, deadline, left_over)

    def _costs(self, plan: Plan, step: float) -> TaskCosts:
        """Estimate the costs of the tasks, given the seconds of a step."""
        costs = TaskCosts.estimated(plan, step, self.machine.slowdown)
        costs.most_closing = CLOSING_SHARE * (self.ends_at - self._began)
        return costs

    def _require_updates(self, left: float, step: float, besides: float, costs: TaskCosts) -> None:
        """Raise InputError where too few steps fit into the seconds ``left``, beside all else; one is always made."""

    def _affordable(self, plan: Plan, size: Size, step: float) -> Plan:
        """Plan ``size`` with evaluations that are short enough for the time, given the seconds of a step."""
        token = SCORING * step / tokens_per_step(plan)
        most = max(LEAST_EVAL_TOKENS, int(EVALUATION_SHARE * self.left / token))
        if plan.settings.train.eval_tokens > most:
            reason = f"an evaluation then takes about {100 * EVALUATION_SHARE:.0f} % of the time"
            self.derived["train.eval_tokens"] = (most, reason)
        return self._plan(size)

    def _compiler_seconds(self, plan: Plan, step: float) -> float | None:
        """Return the seconds of compilation, 0 if it is switched off; None (as a derived setting) without time."""
        if plan.settings.device.compile is False:
            return 0.0
        warm = self.machine.compiled_before(plan)
        seconds = expected_compile_seconds(plan.compiled_layers, warm=warm) * self.machine.slowdown()
        costs = TaskCosts.estimated(plan, step, self.machine.slowdown)
        available = self.until() - self._seconds_to_start(plan, costs)
        if seconds <= available or self.settings.device.compile is True:
            return seconds
        reason = f"compiling would take about {clock_time(seconds)}, and only {clock_time(available)} are left for it"
        self.derived["device.compile"] = (False, reason)
        return None

    def _seconds_to_start(self, plan: Plan, costs: TaskCosts) -> float:
        """Return the seconds until step 1 without compilation: n-gram models, self-test, and the tasks of step 0."""
        megabytes = min(self.data.train.source_bytes, plan.settings.ladder.max_train_bytes) / 1e6
        idle = SELF_TEST_SECONDS + LADDER_SECONDS_A_MB * megabytes  # on a machine without other programs
        return idle * self.machine.slowdown() + costs.each_once

    def _plan(self, size: Size, expected: Forecast | None = None) -> Plan:
        return plan_on(self.data, self.settings, size, expected, self.derived)

    def _step_seconds(self, plan: Plan, allowed: float) -> float:
        """Return the seconds of an update: measured if that fits into ``allowed`` seconds, else estimated by FLOPs."""
        key = self._key(plan)
        expected = self.seconds_per_flop * step_flops(plan)
        if key not in self._timed and TIMED_STEPS * expected < allowed:
            end = self.machine.now() + allowed
            self._note(plan, self._time(self.machine.trial(plan), end))
        return self._timed.get(key, expected)

    def _time(self, trial: Trial, end: float) -> float:
        """Return the median time of a few updates after the first one, as many as fit before ``end``."""
        times: list[float] = []
        while len(times) < TIMED_STEPS and (not times or self.machine.now() + times[-1] < end):
            begin = self.machine.now()
            trial.step()
            times.append(self.machine.now() - begin)
        return statistics.median(times[1:] or times)

    def _note(self, plan: Plan, step: float) -> None:
        """Store the measured seconds of a step."""
        self.seconds_per_flop = step / step_flops(plan)
        self._timed[self._key(plan)] = step

    def _key(self, plan: Plan) -> tuple[int, int, bool]:
        """Return what the time of a step depends on."""
        dropout = plan.settings.train.dropout > 0
        return count_parameters(plan.model).total, tokens_per_step(plan), dropout


def expected_loss(plan: Plan, pilot: Pilot | None, tokens: int) -> Forecast | None:
    """Forecast the loss of the plan's network after ``tokens``; None without pilots."""
    if pilot is None:
        return None
    return forecast(pilot, count_parameters(plan.model).non_embedding, tokens, plan.data.train.num_tokens)


def most_epochs(plan: Plan) -> int:
    """Return how often the run may read its text."""
    examples = plan.data.train.examples
    if not plan.has_base:
        return MAX_EPOCHS
    return base_epochs(examples is not None, examples is not None and examples.rejected is not None)


def worth_reading(tokens: float, plan: Plan) -> int:
    """Return ``tokens``, but at most :func:`most_epochs` passes over the text, rounded down to whole steps."""
    most = min(tokens, most_epochs(plan) * plan.pass_tokens)
    return max(1, int(most / tokens_per_step(plan))) * tokens_per_step(plan)


def _tokens(plan: Plan) -> int:
    """Return the tokens of the whole run."""
    return plan.settings.train.steps * tokens_per_step(plan)
