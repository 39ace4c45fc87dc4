"""Measure a machine: the time of a step, trials of a few updates, the rate of matrix products.

The planning of a run for a time (:mod:`etude.plan.time_budget`) asks a :class:`Machine`, and nothing else, for whatever
takes time; its tests give it one with a clock of their own.
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


class Trial(Protocol):
    """A network that is trained for a moment, and not kept."""

    def step(self) -> None:
        """Make one update, and wait for its end."""

    def bits_per_byte(self) -> float:
        """Score the held-out text."""


class Machine(Protocol):
    """A clock, and what takes time by it."""

    def now(self) -> float:
        """Seconds, of ``time.monotonic`` on a real machine."""

    def slowdown(self) -> float:
        """How many times as long work on one thread takes because of other programs."""

    def product_rate(self, device: Device) -> float:
        """Floating-point operations a second of matrix products, in a few tens of milliseconds."""

    def trial(self, plan: Plan) -> Trial:
        """The network of a plan, at its beginning."""

    def compiled_before(self, plan: Plan) -> bool:
        """Whether the compiled code of the plan's step is in PyTorch's cache."""


class ThisMachine:
    """The one that this process runs on."""

    def __init__(self) -> None:
        self.slowdown = Slowdown()

    def now(self) -> float:
        return time.monotonic()

    def product_rate(self, device: Device) -> float:
        """The average of products until the time is over, after one that finds its memory."""
        import torch

        size = 256 if device.kind == "cpu" else 4096
        dtype = torch.bfloat16 if device.dtype == "bf16" else torch.float32
        left = torch.ones(size, size, device=device.torch, dtype=dtype)
        done, begin = -1, 0.0
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
    """Real updates of the real network on the real text."""

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
    """The median of a few real updates of the real model on the real text, after a first; nothing is kept."""
    trial = RealTrial(plan, compiled=compiled)
    trial.step()
    times = []
    for _ in range(steps):
        begin = time.perf_counter()
        trial.step()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def graph(plan: Plan) -> str:
    """What the compiled code of a plan's step depends on, besides PyTorch."""
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
    """Remember that the plan's step has been compiled on this machine."""
    note_compiled(graph(plan))


def tokens_per_step(plan: Plan) -> int:
    train = plan.settings.train
    return train.batch_rows * train.context


def step_flops(plan: Plan) -> float:
    """Floating-point operations of one update's matrix products."""
    context = plan.settings.train.context
    return tokens_per_step(plan) * training_flops_per_token(plan.model, context, causal=True)
