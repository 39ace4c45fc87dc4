"""One weight or bias over a run: its value, and the updates that moved it."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from etude.errors import InputError
from etude.messages import suggest_name
from etude.model.language_model import LanguageModel
from etude.model.lora import LoRALinear
from etude.watch.activity import shortened
from etude.watch.arithmetic import WeightStep, weight_step
from etude.watch.opened_step import open_step
from etude.watch.time_machine import TimeMachine

MOST_WITH_ADAPTER = 8
"""Most updates of a run with an adapter that are opened unless the caller names them."""


@dataclass(frozen=True, eq=False)
class WeightHistory:
    """One number of a parameter over a run.

    Attributes:
        shape: of its parameter.
        steps: the updates that were opened, oldest first.
        last: the step of the last checkpoint, and the value there.
    """

    machine: TimeMachine = field(repr=False)
    name: str
    index: tuple[int, ...]
    shape: tuple[int, ...]
    steps: tuple[WeightStep, ...]
    last: tuple[int, float]

    @property
    def values(self) -> dict[int, float]:
        """The known values, by the number of updates before; of an adapted matrix the sums that it computes with."""
        known: dict[int, float] = {}
        for step in self.steps:
            known |= dict(zip((step.step - 1, step.step), step.computed_with, strict=True))
        return dict(sorted((known | dict([self.last])).items()))

    def at(self, step: int) -> WeightStep:
        """Return the update that led to ``step``, opening it if it is not one of :attr:`steps`.

        Raises:
            InputError: the run has no such step.
        """
        known = next((opened for opened in self.steps if opened.step == step), None)
        return known or weight_step(open_step(self.machine, step), self.name, self.index)

    def __repr__(self) -> str:
        place = "" if not self.index else f"[{', '.join(map(str, self.index))}]"
        rule = f", moved by {self.steps[0].rule.title}" if self.steps else ""
        if self.steps and self.steps[0].low_rank is not None:
            rule = ", frozen, with an adapter that is added to it"
        lines = [f"{self.name}{place} of {self.shape}{rule}"]
        lines.append(f"{'steps':>14} {'before':>12} {'gradient':>11} {'lr':>10} {'decay':>10} {'update':>11}")
        lines += shortened(
            [
                f"{s.step - 1:>6} -> {s.step:<5} {s.computed_with[0]:+12.6g} {s.gradient:+11.3g} {s.lr:10.3g} "
                f"{s.decay:+10.2g} {s.computed_with[1] - s.computed_with[0]:+11.3g}"
                f"{'' if s.applied else '  skipped'}"
                for s in self.steps
            ]
        )
        return "\n".join([*lines, f"at step {self.last[0]:,}: {self.last[1]:+.9g}"])


def look_at_weight(
    machine: TimeMachine, name: str, index: Sequence[int] | int, steps: Sequence[int] | None = None
) -> WeightHistory:
    """Return the number at ``index`` of the parameter ``name``, over the run.

    Every opened update costs a replay and a training step: for a long run of a large model, pass a few ``steps``.

    Args:
        index: one integer for each axis of the parameter.
        steps: the updates that lead to these are opened; default: the update after each checkpoint (of a run with
            an adapter, after a few).

    Raises:
        InputError: no such parameter (the message suggests the nearest), index (it gives the shape), or step.
    """
    recorded = machine.recorded
    shapes = {known: tuple(p.shape) for known, p in machine.empty_model().named_parameters()}
    if name not in shapes:
        raise InputError(f"no parameter is called '{name}': {suggest_name(name, list(shapes))}")
    place = index_in(name, index, shapes[name])
    if steps is None:
        steps = [saved + 1 for saved in recorded.checkpoints if saved < recorded.last_step]
        if recorded.settings.train.lora_rank:  # it keeps many checkpoints, of a large network
            steps = steps[:: -(-len(steps) // MOST_WITH_ADAPTER)]
    chosen = sorted(set(steps))
    for step in chosen:
        recorded.require_step(step)
    updates = tuple(weight_step(open_step(machine, step), name, place) for step in chosen)
    last = max(recorded.checkpoints)
    value = float(computed_with(machine.go_to(last).model, name)[place].detach())
    return WeightHistory(machine, name, place, shapes[name], updates, (last, value))


def index_in(name: str, index: Sequence[int] | int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return ``index`` of a number of the parameter ``name`` as a tuple.

    Raises:
        InputError: the parameter has no such number.
    """
    try:
        place = tuple(operator.index(value) for value in (index if isinstance(index, Sequence) else (index,)))
    except TypeError:
        place = ()
    inside = len(place) == len(shape) and all(
        0 <= value < size for value, size in zip(place, shape, strict=True)
    )
    if not inside:
        highest = ", ".join(str(size - 1) for size in shape)
        raise InputError(
            f"'{name}' has shape {shape}: give {len(shape)} integers, each from 0, up to ({highest}), not {index}"
        )
    return place


def computed_with(model: LanguageModel, name: str) -> Tensor:
    """Return the parameter ``name``; of an adapted matrix the sum, with which the network computes."""
    path, _, leaf = name.rpartition(".")
    layer = model.get_submodule(path)
    return layer.weight if isinstance(layer, LoRALinear) and leaf == "weight" else model.get_parameter(name)
