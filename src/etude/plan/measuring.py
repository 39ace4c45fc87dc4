"""Measure the machine: the time of a step, trials of a few updates, the rate of matrix products.

Planning with a time budget (:mod:`etude.plan.time_budget`) uses time only through a :class:`Machine`, so that its tests
can replace the clock.
"""

from __future__ import annotations

import statistics
import time
from typing import Protocol

from etude.device import Device
from etude.model.cost import training_flops_per_token
from etude.plan.plan import Plan, initial_state, make_objective, validation_text
from etude.plan.task_costs import Slowdown
from etude.train.compilation import compile_objective, compiled_before, note_compiled
from etude.train.loop import Loop

PRODUCT_SECONDS = 0.03
"""How long the rate of matrix products is measured."""
MEASURING_SECONDS = 5.0
"""Seconds after which :func:`fastest_step` begins no further update."""


class Trial(Protocol):
    """A network that is trained for some updates to time them, and then dropped."""

    def step(self) -> None:
        """Make one update, and wait until the device has finished it."""

    def bits_per_byte(self) -> float:
        """Score the held-out text."""


class Machine(Protocol):
    """A clock, and the operations that take time on it."""

    def now(self) -> float:
        """Return the time in seconds; ``time.monotonic`` on a real machine."""

    def slowdown(self) -> float:
        """Return the factor by which other programs slow down work on one thread."""

    def product_rate(self, device: Device) -> float:
        """Measure floating-point operations per second of matrix products, in a few tens of milliseconds."""

    def trial(self, plan: Plan) -> Trial:
        """Build the network of a plan in its initial state."""

    def compiled_before(self, plan: Plan) -> bool:
        """Return whether PyTorch's cache has the compiled code of the plan's step."""


class ThisMachine:
    """The machine that runs this process."""

    def __init__(self) -> None:
        self.slowdown = Slowdown()

    def now(self) -> float:
        return time.monotonic()

    def product_rate(self, device: Device) -> float:
        """Average over products for ``PRODUCT_SECONDS``, after a first one that allocates memory."""
        import torch

        size = 256 if device.kind == "cpu" else 4096
        dtype = torch.bfloat16 if device.dtype == "bf16" else torch.float32
        left = torch.ones(size, size, device=device.torch, dtype=dtype)
        done, begin = -1, 0.0  # the product number 0 is not timed
        while done < 1 or time.perf_counter() - begin < PRODUCT_SECONDS:
            left @ left
            device.synchronize()
            done += 1
            if done == 0:
                begin = time.perf_counter()
        return done * 2 * size**3 / (time.perf_counter() - begin)

    def trial(self, plan: Plan) -> Trial:
        return RealTrial(plan)

    def compiled_before(self, plan: Plan) -> bool:
        return compiled_before(graph(plan))


class RealTrial:
    """Updates of the plan's network on the run's text, by the loop that trains."""

    def __init__(self, plan: Plan, *, compiled: bool = False) -> None:
        self._plan = plan
        self._state = initial_state(plan)
        objective = make_objective(plan, self._state)
        if compiled:
            compile_objective(objective, plan.device, "auto")
        self._loop = Loop(self._state, objective, plan.settings.train, plan.device)

    def step(self) -> None:
        self._loop.one_step()
        self._plan.device.synchronize()

    def bits_per_byte(self) -> float:
        return validation_text(self._plan).score(self._state.model).bits_per_byte


def seconds_per_step(plan: Plan, steps: int, *, compiled: bool = False) -> float:
    """Measure the median time of ``steps`` updates after a first one, of the plan's network on its text."""
    trial = RealTrial(plan, compiled=compiled)
    trial.step()
    times = []
    for _ in range(steps):
        begin = time.perf_counter()
        trial.step()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def graph(plan: Plan) -> str:
    """Describe all that the compiled code of a plan's step depends on, besides PyTorch."""
    train, device = plan.settings.train, plan.device
    return repr(
        (
            plan.model,
            train.micro_batch_rows,
            train.context,
            train.dropout,
            train.activation_checkpointing,
            plan.settings.data.cross_document_attention,
            train.objective,
            (device.kind, device.dtype, device.threads),
        )
    )


def note_compiled_plan(plan: Plan) -> None:
    """Record that this machine has compiled the plan's step."""
    note_compiled(graph(plan))


def tokens_per_step(plan: Plan) -> int:
    """Return the tokens of a batch."""
    train = plan.settings.train
    return train.batch_rows * train.context


def step_flops(plan: Plan) -> float:
    """Count the floating-point operations of the matrix products in one update."""
    context = plan.settings.train.context
    return tokens_per_step(plan) * training_flops_per_token(plan.model, context, causal=True)


def fastest_step(plan: Plan, steps: int = 4) -> float:
    """Return the seconds of the fastest of a few updates of the real model on the real text, not compiled.

    Nothing of them is kept.
    """
    trial = RealTrial(plan)
    fastest = float("inf")
    began = time.perf_counter()
    for _ in range(steps):
        if fastest < float("inf") and time.perf_counter() - began > MEASURING_SECONDS:
            break
        begin = time.perf_counter()
        trial.step()
        fastest = min(fastest, time.perf_counter() - begin)
    return fastest
