"""The arithmetic of one number of the network in one update, with every factor written out.

Python's floats are float64. The optimizer computed in fp32, so its result differs by rounding; the difference is shown.
The update rule supplies the terms between gradient and direction (:mod:`etude.train.rules.terms`); the rest is the same
for every rule.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from etude.train.rules import Hyperparameters, UpdateRule
from etude.train.rules.frozen import FROZEN
from etude.train.rules.terms import NumberUpdate, Term
from etude.watch.low_rank import LowRank, low_rank_part
from etude.watch.opened_step import OpenedStep

LABEL = 12
"""Width of the label at the start of a line."""
WIDEST = 110


@dataclass(frozen=True)
class WeightStep:
    """One number of a parameter in the update that led to ``step``.

    Attributes:
        before, after: its value; ``after`` is what the run applied.
        gradient: of the loss of the whole batch, before clipping.
        clip_factor: what the gradient was multiplied by.
        state_before, state_after: the optimizer's state of this number, by leaf; empty before the first update.
        used: learning rate, weight decay and the other hyperparameters.
        applied: False if the step was skipped because its loss or gradient was not finite.
        whole: what the rule derives from the whole tensor, at this number, as the run computed it.
        spacing: distance between neighbouring floats at this size, in the parameter's own precision.
        proof: how the replay compares with the record, in words.
        low_rank: what an adapter adds to this number.
    """

    rule: UpdateRule
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
    whole: Mapping[str, float]
    spacing: float
    proof: str
    low_rank: LowRank | None = None

    @property
    def update(self) -> float:
        """What was added: exactly after - before."""
        return self.after - self.before

    @property
    def computed_with(self) -> tuple[float, float]:
        """The number that the network computes with, before and after: of an adapted matrix the sum."""
        part = self.low_rank
        if part is None:
            return self.before, self.after
        return part.base + part.product, part.base + part.product_after

    @property
    def lr(self) -> float:
        return self.used.lr

    @property
    def decay(self) -> float:
        """The weight decay of the update: -lr * weight_decay * before; 0 for a skipped step."""
        if not self.applied:
            return 0.0
        return -self.used.lr * self.used.weight_decay * self.before

    @property
    def clipped(self) -> float:
        """The clipped gradient, which is what the rule received."""
        return self.gradient * self.clip_factor

    @property
    def number(self) -> NumberUpdate:
        """This number as its rule sees it, with the rule's terms."""
        number = NumberUpdate(self.used, self.state_before, self.whole, self.clipped)
        self.rule.terms(number)
        return number

    @property
    def terms(self) -> list[Term]:
        """The terms from the clipped gradient to the direction, which is the last."""
        return self.number.terms

    @property
    def direction(self) -> float:
        """What the learning rate multiplies."""
        return self.terms[-1].value

    @property
    def by_the_rule(self) -> float:
        """The value after the update according to the terms above; ``before`` for a skipped step."""
        if not self.applied:
            return self.before
        return self.before + self.decay - self.used.lr * self.direction

    @property
    def difference(self) -> float:
        """The applied value minus the rule's."""
        return self.after - self.by_the_rule

    @property
    def lines(self) -> list[str]:
        """The arithmetic as text, each line with its numbers. Nine digits distinguish any two fp32 numbers."""
        used, number = self.used, self.number
        if self.low_rank is not None:
            return self.low_rank.lines
        gradient = f"{_n(self.gradient)} * {self.clip_factor:.9g} (clip) = {_n(self.clipped)}"
        lines = [_line("gradient", gradient)]
        if self.rule is FROZEN:
            return [
                _line("gradient", f"{_n(self.gradient)}, not applied, for the number is frozen"),
                _line("value", _n(self.before)),
            ]
        if not self.applied:
            skipped = "the loss or the gradient of this step was not finite, so no parameter changed"
            return [*lines, _line("skipped", skipped), _line("value", _n(self.before))]
        for term in number.terms:
            lines += _term_lines(term, number.known)
        direction = number.terms[-1].value
        step = used.lr * direction
        decay = f"{used.lr:.9g} * {used.weight_decay:.9g} * {_n(self.before)} = {_n(-self.decay)}"
        return [
            *lines,
            _line("decay", f"lr * weight_decay * w = {decay}"),
            _line("step", f"lr * direction = {used.lr:.9g} * {_n(direction)} = {_n(step)}"),
            _line(
                "new value", f"{_n(self.before)} - {_n(-self.decay)} - {_n(step)} = {_n(self.by_the_rule)}"
            ),
            _line(
                "applied",
                f"{_n(self.after)}, {self.difference:+.1e} off; neighbouring floats of its "
                f"precision are {self.spacing:.1e} apart",
            ),
        ]

    def __repr__(self) -> str:
        place = "" if not self.index else f"[{', '.join(map(str, self.index))}]"
        head = f"{self.name}{place}, update {self.step - 1} -> {self.step} by {self.rule.title}"
        return "\n".join([head, *(f"  {line}" for line in self.lines), f"  {self.proof}"])


def weight_step(opened: OpenedStep, name: str, index: tuple[int, ...]) -> WeightStep:
    """Return one number of an opened step: that at ``index`` of the parameter ``name``.

    Raises:
        InputError: no parameter has that name.
    """
    update = opened.parameter(name)
    size = torch.maximum(update.before[index].abs(), update.after[index].abs())
    return WeightStep(
        update.rule,
        name,
        index,
        opened.step,
        float(update.before[index]),
        float(update.after[index]),
        float(update.gradient[index]),
        opened.clip_factor,
        update.leaves(update.state_before, index),
        update.leaves(update.state_after, index),
        update.used,
        opened.applied,
        {symbol: float(value[index]) for symbol, value in opened.of_whole(name).items()},
        float(size * torch.finfo(size.dtype).eps),
        str(opened.proof),
        low_rank_part(
            opened.model.config,
            name,
            index,
            opened.before.weights,
            opened.after.weights,
            float(update.gradient[index]),
        ),
    )


def _term_lines(term: Term, known: Mapping[str, float]) -> list[str]:
    if term.formula is not None:
        return [_line(term.symbol, f"{term.formula.text(known, _n)} = {_n(term.value)}")]
    first, *others = textwrap.wrap(f"{_n(term.value)}: {term.note}", WIDEST - LABEL)
    return [_line(term.symbol, first), *(_line("", other) for other in others)]


def _line(label: str, text: str) -> str:
    return f"{label:{LABEL}}{text}"


def _n(value: float) -> str:
    return f"{value + 0.0:+.9g}"  # + 0.0 turns -0.0 into 0.0
