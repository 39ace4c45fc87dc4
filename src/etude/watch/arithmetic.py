"""The arithmetic of one number of the network in one update, every factor at hand and written out.

Python's floats are float64; what the optimizer did in fp32 differs from it by rounding, and how much is told.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from etude.watch.opened_step import OpenedStep
from etude.watch.update import Hyperparameters, ParameterUpdate


@dataclass(frozen=True)
class WeightStep:
    """One number of a parameter in the update that led to ``step``.

    Attributes:
        before, after: its value; ``after`` is what was applied.
        gradient: of the loss of the whole batch, before clipping.
        clip_factor: what the gradient was multiplied by.
        state_before, state_after: the optimizer's, of this number: exp_avg, exp_avg_sq, step; or momentum_buffer. Empty
            before the first update.
        used: learning rate, decay and so on.
        applied: False when the step was left out because its loss or gradient was not finite.
        orthogonal: of Muon, this number's element of the orthogonalised matrix, which depends on the whole of it, as
            the run made it; of AdamW None.
        scale: Muon's factor of the matrix's shape, else 1.
        spacing: between neighbouring values at this size, in the parameter's own precision.
        proof: how the replay compares with the record, in words.
    """

    name: str
    index: tuple[int, ...]
    step: int
    before: float
    after: float
    gradient: float
    clip_factor: float
    state_before: Mapping[str, float]
    state_after: Mapping[str, float]
    used: Hyperparameters
    applied: bool
    orthogonal: float | None
    scale: float
    spacing: float
    proof: str

    @property
    def update(self) -> float:
        """What was added: exactly after - before."""
        return self.after - self.before

    @property
    def lr(self) -> float:
        return self.used.lr

    @property
    def decay(self) -> float:
        """The part of the update that pulls towards zero: -lr * weight_decay * before; of a step left out nothing."""
        if not self.applied:
            return 0.0
        return -self.used.lr * self.used.weight_decay * self.before

    @property
    def clipped(self) -> float:
        """The gradient as the rule was given it."""
        return self.gradient * self.clip_factor

    @property
    def moments(self) -> tuple[float, float]:
        """AdamW's m and v after the update."""
        (first, second), was = self.used.betas, self.state_before
        return (
            first * was.get("exp_avg", 0.0) + (1 - first) * self.clipped,
            second * was.get("exp_avg_sq", 0.0) + (1 - second) * self.clipped**2,
        )

    @property
    def corrected(self) -> tuple[float, float]:
        """AdamW's m and v over what they lack for having begun at zero."""
        count = self.state_before.get("step", 0.0) + 1
        (m, v), (first, second) = self.moments, self.used.betas
        return m / (1 - first**count), v / (1 - second**count)

    @property
    def momentum(self) -> float:
        """Muon's M after the update."""
        mu = self.used.momentum
        return mu * self.state_before.get("momentum_buffer", 0.0) + (1 - mu) * self.clipped

    @property
    def ahead(self) -> float:
        """Muon's direction before it is made orthogonal (Nesterov's)."""
        return self.used.momentum * self.momentum + (1 - self.used.momentum) * self.clipped

    @property
    def direction(self) -> float:
        """What the learning rate multiplies."""
        if self.orthogonal is not None:
            return self.scale * self.orthogonal
        m, v = self.corrected
        return m / (math.sqrt(v) + self.used.eps)

    @property
    def by_the_rule(self) -> float:
        """The value after the update, from all that is above; ``before`` where nothing was applied."""
        if not self.applied:
            return self.before
        return self.before + self.decay - self.used.lr * self.direction

    @property
    def difference(self) -> float:
        """Between the applied value and the rule's."""
        return self.after - self.by_the_rule

    @property
    def lines(self) -> list[str]:
        """The arithmetic as text, each line with its numbers. Nine digits tell one fp32 number from the next."""
        used, g = self.used, _n(self.clipped)
        lines = [f"gradient    {_n(self.gradient)} * {self.clip_factor:.9g} (clip) = {g}"]
        if not self.applied:
            lines.append(
                "left out    the loss or the gradient of this step was not finite: nothing was changed"
            )
            return [*lines, f"value       {_n(self.before)}"]
        lines += self._muon_lines(g) if used.rule == "muon" else self._adamw_lines(g)
        step = used.lr * self.direction
        decay = f"{used.lr:.9g} * {used.weight_decay:.9g} * {_n(self.before)} = {_n(-self.decay)}"
        return [
            *lines,
            f"decay       lr * weight_decay * w = {decay}",
            f"step        lr * direction = {used.lr:.9g} * {_n(self.direction)} = {_n(step)}",
            f"new value   {_n(self.before)} - {_n(-self.decay)} - {_n(step)} = {_n(self.by_the_rule)}",
            f"applied     {_n(self.after)}, {self.difference:+.1e} off; neighbours in its precision are "
            f"{self.spacing:.1e} apart",
        ]

    def _adamw_lines(self, g: str) -> list[str]:
        (first, second), was, (m, v) = self.used.betas, self.state_before, self.moments
        count, (mean, square) = was.get("step", 0.0) + 1, self.corrected
        return [
            f"m           {first:g} * {_n(was.get('exp_avg', 0.0))} + {1 - first:.6g} * {g} = {_n(m)}",
            f"v           {second:g} * {_n(was.get('exp_avg_sq', 0.0))} + {1 - second:.6g} * ({g})^2 = {_n(v)}",
            f"corrected   m / (1 - {first:g}^{count:g}) = {_n(mean)}, v / (1 - {second:g}^{count:g}) = {_n(square)}",
            f"direction   {_n(mean)} / (sqrt({_n(square)}) + {self.used.eps:g}) = {_n(self.direction)}",
        ]

    def _muon_lines(self, g: str) -> list[str]:
        mu, was = self.used.momentum, self.state_before.get("momentum_buffer", 0.0)
        assert self.orthogonal is not None
        rows, columns = self.used.blocks
        blocks = "" if rows * columns == 1 else f", in {rows * columns} blocks"
        return [
            f"momentum    {mu:g} * {_n(was)} + {1 - mu:.6g} * {g} = {_n(self.momentum)}",
            f"ahead       {mu:g} * {_n(self.momentum)} + {1 - mu:.6g} * {g} = {_n(self.ahead)}",
            f"orthogonal  {_n(self.orthogonal)}: a weight does not move alone; the whole matrix of these is made",
            f"            orthogonal{blocks}, and this is its element here",
            f"direction   {self.scale:.9g} (of the shape) * {_n(self.orthogonal)} = {_n(self.direction)}",
        ]

    def __repr__(self) -> str:
        place = "" if not self.index else f"[{', '.join(map(str, self.index))}]"
        head = f"{self.name}{place}, update {self.step - 1} -> {self.step} by {self.used.rule}"
        return "\n".join([head, *(f"  {line}" for line in self.lines), f"  {self.proof}"])


def weight_step(opened: OpenedStep, name: str, index: tuple[int, ...]) -> WeightStep:
    """One number of an opened step. ``name`` and ``index`` are of the network.

    Raises:
        InputError: no parameter has that name.
    """
    update = opened.parameter(name)
    orthogonal, scale = None, 1.0
    if update.used.rule == "muon":
        scale = update.scale
        orthogonal = float(opened.orthogonal[name][index]) if opened.applied else 0.0
    size = torch.maximum(update.before[index].abs(), update.after[index].abs())
    return WeightStep(
        name,
        index,
        opened.step,
        float(update.before[index]),
        float(update.after[index]),
        float(update.gradient[index]),
        opened.clip_factor,
        _of_one(update, update.state_before, index),
        _of_one(update, update.state_after, index),
        update.used,
        opened.applied,
        orthogonal,
        scale,
        float(size * torch.finfo(size.dtype).eps),
        str(opened.proof),
    )


def _of_one(
    update: ParameterUpdate, state: Mapping[str, torch.Tensor], index: tuple[int, ...]
) -> dict[str, float]:
    """Tensors of the parameter's shape at ``index``; the count of steps is one number for all."""
    return {leaf: float(value if leaf == "step" else value[index]) for leaf, value in state.items()}


def _n(value: float) -> str:
    return f"{value + 0.0:+.9g}"  # no zero with a minus
