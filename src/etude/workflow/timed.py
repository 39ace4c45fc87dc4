"""``--time``: the size whose expected loss is lowest among those that this machine can train in the time.

1. Two pilots of the narrowest shape are trained on the text itself for a few seconds.
2. Wider shapes are timed, a few real updates each, until two in a row promise no more.
3. The chosen one is compiled as the run will be, timed once more together with its evaluations, samples and
   checkpoints, and given as many steps as fit.

Everything is measured on this device and this text when the run is planned; nothing is looked up.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

from rich.console import Console
from rich.table import Table

from etude.config import Settings, resolved
from etude.data.prepare import PreparedData
from etude.device import place_on_machine
from etude.errors import InputError
from etude.model.cost import count_parameters, training_flops_per_token
from etude.train.checkpoint import Snapshot, save_checkpoint
from etude.train.compilation import compile_objective
from etude.train.dial import MAX_EPOCHS
from etude.train.forecast import LONG_PILOT, SHORT_PILOT, Forecast, Pilot, forecast
from etude.train.loop import Loop
from etude.train.plan import Plan, initial_state, next_token_objective, plan_on, validation_text
from etude.train.sizes import SHAPES, SIZES, Shape, Size
from etude.workflow.pace import Deadline
from etude.workflow.tasks import (
    CLOSING_SAMPLE_TOKENS,
    CLOSING_SAMPLES,
    SAMPLE_TOKENS,
    Sample,
    evaluation_due,
    opening_words,
    sample_due,
    save_due,
)

SHORTEST = 30.0
"""Seconds: less cannot hold the measurements and a run worth having."""
TIMED_STEPS, COMPILED_STEPS = 3, 12
TRIAL_TOKENS = 2_300_000
"""Length of the run that a shape's batch is taken from while it is timed."""
MEASURING_SHARE = 0.1
"""Of the time, at most, for timing shapes."""
CLOSING_SECONDS = 1.0
"""To load what was saved, besides the samples at the very end; the pictures and words of it."""
SECONDS_TO_START_A_LAYER = 1.0
"""Compiled code comes from the cache by then, but the network is traced again."""


@dataclass(frozen=True)
class Candidate:
    """A shape, how much text it can read in the time, and what loss that promises."""

    shape: Shape
    tokens: int
    expected: Forecast


@dataclass(frozen=True)
class Promise:
    """What ``--time`` comes to."""

    size: Size
    expected: Forecast
    candidates: Sequence[Candidate]
    deadline: Deadline
    time_left_over: float
    """Seconds that are not used, because the text is not worth reading more often."""

    def table(self) -> Table:
        """The shapes that were considered, and what was expected of them."""
        table = Table(
            "", "width", "layers", "tokens in the time", "bits a byte expected", box=None, header_style="bold"
        )
        for candidate in self.candidates:
            shape, loss = candidate.shape, candidate.expected
            mark = "→" if shape == self.size.shape else ""
            band = f"{loss.middle:.3f}  ({loss.low:.3f} to {loss.high:.3f})"
            table.add_row(
                mark, str(shape.hidden_size), str(shape.num_hidden_layers), f"{candidate.tokens:,}", band
            )
        return table


def choose_size(data: PreparedData, settings: Settings, deadline: float, console: Console) -> Promise:
    """The best size for the time left until ``deadline`` (of ``time.monotonic``).

    Raises:
        InputError: less time than a run needs, or several processes.
    """
    if place_on_machine()[1] > 1:
        raise InputError("--time measures one process: with torchrun give --size or --steps")
    seconds = deadline - time.monotonic()
    if seconds < SHORTEST:
        raise InputError(
            f"once the text is prepared {max(0.0, seconds):.0f} s of the time are left, and a run needs "
            f"{SHORTEST:.0f}: give a longer --time, or --size nano without one"
        )
    with console.status("measuring this machine on this text"):
        pilot = run_pilots(data, settings)
        candidates = time_shapes(data, settings, pilot, deadline)
        best = min(candidates, key=lambda candidate: candidate.expected.middle)
        size, run_deadline, left_over = fill_time(data, settings, best, deadline)
    expected = expected_loss(plan_on(data, settings, size), pilot, size.tokens)
    return Promise(size, expected, candidates, run_deadline, left_over)


def run_pilots(data: PreparedData, settings: Settings) -> Pilot:
    """Train the narrowest shape for a moment, and for a longer one, and score both."""
    asked = Settings(data=settings.data, tokenizer=settings.tokenizer, device=settings.device)
    short, long = (plan_on(data, asked, size) for size in (SHORT_PILOT, LONG_PILOT))
    parameters = count_parameters(long.model).non_embedding
    tokens = resolved(long.settings.train.steps, "train.steps") * tokens_per_step(long)
    return Pilot(train_briefly(short), train_briefly(long), parameters, tokens)


def train_briefly(plan: Plan) -> float:
    """Carry out a plan without a run folder; the bits per byte at its end."""
    state = initial_state(plan)
    loop = Loop(state, next_token_objective(plan, state), plan.settings.train, plan.device)
    for _ in range(loop.objective.num_steps):
        loop.one_step()
    return validation_text(plan).score(state.model).bits_per_byte


def time_shapes(data: PreparedData, settings: Settings, pilot: Pilot, deadline: float) -> Sequence[Candidate]:
    """Wider and wider shapes, until two in a row promise no more; what takes too long to time is scaled by FLOPs."""
    began = time.monotonic()
    allowed = MEASURING_SHARE * (deadline - began)
    candidates: list[Candidate] = []
    seconds_per_flop, measuring = 0.0, True
    for shape in SHAPES if settings.model.size == "auto" else [SIZES[settings.model.size].shape]:
        plan = plan_on(data, settings, Size(shape, TRIAL_TOKENS))
        foreseen = (TIMED_STEPS + 1) * seconds_per_flop * step_flops(plan)
        measuring = not candidates or (measuring and time.monotonic() - began + foreseen < allowed)
        if measuring:
            seconds_per_flop = seconds_per_step(plan, TIMED_STEPS) / step_flops(plan)
        rate = tokens_per_step(plan) / (seconds_per_flop * step_flops(plan))
        tokens = worth_reading(rate * (deadline - time.monotonic()), plan)
        candidates.append(Candidate(shape, tokens, expected_loss(plan, pilot, tokens)))
        losses = [candidate.expected.middle for candidate in candidates]
        if len(losses) > 2 and min(losses[-2:]) > losses[-3]:
            break
    return candidates


def fill_time(
    data: PreparedData, settings: Settings, best: Candidate, deadline: float
) -> tuple[Size, Deadline, float]:
    """As many tokens for the best shape as fit, by the clock of the run's own compiled step and its own tasks.

    Also what the run has to keep to, and how many seconds are left over because the text is read out.
    """
    tokens = best.tokens
    for _ in range(2):
        plan = plan_on(data, settings, Size(best.shape, tokens))
        compiled = plan.settings.device.compile is not False
        step = seconds_per_step(plan, COMPILED_STEPS, compiled=compiled)
        costs = task_costs(plan)
        start = SECONDS_TO_START_A_LAYER * plan.model.num_hidden_layers if compiled else 0.0
        last = resolved(plan.settings.train.steps, "train.steps")
        between = costs.each_once + costs.between(plan, 0, last)
        left = deadline - time.monotonic() - start - between - costs.at_the_end
        tokens = worth_reading(left / step * tokens_per_step(plan), plan)
        if _step_of(plan_on(data, settings, Size(best.shape, tokens))) == _step_of(plan):
            break  # otherwise a run of this length has another step: time that one
    left_over = left - step * (tokens / tokens_per_step(plan) + 1)
    size = Size(best.shape, tokens)
    chosen = plan_on(data, settings, size)
    most_steps = worth_reading(math.inf, chosen) // tokens_per_step(chosen)
    return size, Deadline(deadline, costs.at_the_end, partial(costs.between, chosen), most_steps), left_over


def _step_of(plan: Plan) -> tuple[int, bool]:
    """What the time of a step depends on besides the shape."""
    return tokens_per_step(plan), resolved(plan.settings.train.dropout, "train.dropout") > 0


def seconds_per_step(plan: Plan, steps: int, *, compiled: bool = False) -> float:
    """The median of a few real updates of the real model on the real text, after a first; nothing is kept."""
    state = initial_state(plan)
    objective = next_token_objective(plan, state)
    if compiled:
        compile_objective(objective, plan.device, "auto")
    loop = Loop(state, objective, plan.settings.train, plan.device)
    loop.one_step()
    times = []
    for _ in range(steps):
        plan.device.synchronize()
        begin = time.perf_counter()
        loop.one_step()
        plan.device.synchronize()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


@dataclass(frozen=True)
class TaskCosts:
    """Seconds that each thing between steps takes once."""

    evaluation: float
    sample: float
    checkpoint: float

    def between(self, plan: Plan, first: int, last: int) -> float:
        """Those that are due from step ``first`` on and before step ``last``, but for the ones before step 1."""
        train, steps = plan.settings.train, range(max(1, first), last)
        costs = (self.evaluation, self.sample, self.checkpoint)
        dues = (evaluation_due(train), sample_due(train), save_due(train))
        return sum(cost * sum(map(due, steps)) for cost, due in zip(costs, dues, strict=True))

    @property
    def each_once(self) -> float:
        return self.evaluation + self.sample + self.checkpoint

    @property
    def at_the_end(self) -> float:
        """From the last step to the last line: each once, and the samples that close a run."""
        closing = CLOSING_SECONDS + self.sample * CLOSING_SAMPLES * CLOSING_SAMPLE_TOKENS / SAMPLE_TOKENS
        return self.each_once + closing


def task_costs(plan: Plan) -> TaskCosts:
    """What an evaluation, a sample and a checkpoint of the plan take: each is done here."""
    state = initial_state(plan)
    sample = Sample(plan.data.tokenizer, opening_words(plan), plan.settings.run.seed)
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
    """Of the second time: the first one also finds its memory and its modules."""
    do()
    begin = time.perf_counter()
    do()
    return time.perf_counter() - begin


def expected_loss(plan: Plan, pilot: Pilot, tokens: int) -> Forecast:
    """What the plan's network is expected to reach after ``tokens``."""
    return forecast(pilot, count_parameters(plan.model).non_embedding, tokens, plan.data.train.num_tokens)


def worth_reading(tokens: float, plan: Plan) -> int:
    """``tokens`` if the text is good for so many, whole steps of them."""
    most = min(tokens, MAX_EPOCHS * plan.data.train.num_tokens)
    return max(1, int(most / tokens_per_step(plan))) * tokens_per_step(plan)


def tokens_per_step(plan: Plan) -> int:
    train = plan.settings.train
    return resolved(train.batch_rows, "train.batch_rows") * resolved(train.context, "train.context")


def step_flops(plan: Plan) -> float:
    """Floating-point operations of one update's matrix products."""
    context = resolved(plan.settings.train.context, "train.context")
    return tokens_per_step(plan) * training_flops_per_token(plan.model, context, causal=True)
