"""The axes of a loss plot: steps at the bottom, tokens at the top, bits per byte on the left."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from etude.run.events import EvalEvent, ReferenceEvent
from etude.run.history import RunHistory
from etude.run.ladder import Ladder
from etude.show.layout import log_ticks, prefers_log, short_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DECADES_OF_STEPS = 5000  # a logarithmic axis starts this many times below its end, and is linear before


@dataclass(frozen=True)
class StepAxis:
    """From step 0 to `last`; logarithmic from `threshold` on if that is a number."""

    last: int
    threshold: float | None

    @classmethod
    def of(cls, runs: list[RunHistory]) -> StepAxis:
        """Choose a logarithmic axis if one of the runs learned most of what it learned in its first tenth."""
        last = max(1, *(events[-1].step for run in runs for events in (run.steps, run.evals) if events))
        if not any(prefers_log(*curve(run)) for run in runs):
            return cls(last, None)
        return cls(last, max(1.0, 10.0 ** math.floor(math.log10(last / DECADES_OF_STEPS))))

    @property
    def logarithmic(self) -> bool:
        return self.threshold is not None

    def apply(self, axes: Axes) -> None:
        """Set scale, limits and ticks."""
        from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

        if self.threshold is None:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        else:
            axes.set_xscale("symlog", linthresh=self.threshold, linscale=0.25)
            axes.xaxis.set_major_locator(FixedLocator(log_ticks(self.threshold, self.last)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlim(0, self.last)


def add_tokens_axis(axes: Axes, steps: StepAxis, run: RunHistory) -> Axes:
    """Add a second axis above the plot, with the tokens seen at each tick of the steps."""
    evaluated = [(event.step, event.tokens_seen) for event in run.evals]
    known_steps, known_tokens = (
        np.concatenate([run.steps.column(name), np.array(values, np.int64)])
        for name, values in zip(("step", "tokens_seen"), zip(*evaluated, strict=True), strict=True)
    )
    order = np.lexsort((known_tokens, known_steps))
    known_steps, known_tokens = known_steps[order], known_tokens[order]
    above = axes.twiny()
    steps.apply(above)
    above.xaxis.set_major_formatter(
        lambda step, _: short_number(float(np.interp(step, known_steps, known_tokens)))
    )
    for spine in above.spines.values():
        spine.set_visible(False)
    return above


def bits_range(runs: list[RunHistory], ladder: Ladder | None) -> tuple[float, float]:
    """Return a range that holds the best value and the worst validation or rung; training spikes may exceed it."""
    values = [value for run in runs for value in curve(run)[1] if math.isfinite(value)]
    if len(runs) == 1:  # of several, only the validation results are drawn
        values += [value for value in curve(runs[0], "references")[1] if math.isfinite(value)]
    firsts = [next(value for value in curve(run)[1] if math.isfinite(value)) for run in runs]
    rungs = [rung.bits_per_byte for rung in ladder.rungs] if ladder else []
    low, high = min(values + rungs), max(min(max(values), 1.5 * max(firsts)), *rungs, 0.0)
    margin = 0.06 * max(high - low, 0.1)
    return max(0.0, low - margin), high + margin


def curve(run: RunHistory, text: Literal["evals", "references"] = "evals") -> tuple[list[int], list[float]]:
    """Return the steps and bits per byte of the results on the validation text, or on the reference text."""
    events: Sequence[EvalEvent | ReferenceEvent] = getattr(run, text)
    return [event.step for event in events], [event.bits_per_byte for event in events]


def last_result(run: RunHistory) -> EvalEvent:
    """Return the latest finite validation result."""
    return next(event for event in reversed(run.evals) if math.isfinite(event.bits_per_byte))
