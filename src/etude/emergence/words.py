"""Scores, changes and the loss law as text, the same in the terminal and in the report."""

from __future__ import annotations

import math

from etude.emergence.study import Ability, Axis, LawOfStudy
from etude.evaluate.results import Measured
from etude.evaluate.statistics import Estimate
from etude.show.layout import short_number


def counted(number: int, what: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def law_lines(law: LawOfStudy | str) -> list[str]:
    """Describe the loss law in lines, or why there is none."""
    if isinstance(law, str):
        return [f"no loss law: {law}"]
    fitted = law.law
    coefficient, exponent = fitted.size
    interval = fitted.exponent_interval()
    tokens = "" if fitted.data is None else f" + {fitted.data[0]:.3g} / D^{fitted.data[1]:.2f}"
    lines = [
        f"loss law: L(N) = {fitted.floor:.3f} + {coefficient:.3g} / N^{exponent:.2f}{tokens} nats per token; "
        f"exponent {interval.low:.2f} to {interval.high:.2f}, from {counted(len(fitted.runs), 'run')}"
    ]
    measured = sum(law.measured) / len(law.measured)
    size = short_number(law.largest)
    if law.predicted is None:
        lines.append(f"the largest size ({size}) cannot be predicted from the others: {law.why_not}")
    else:
        interval = law.predicted.interval
        inside = sum(interval.holds(loss) for loss in law.measured)
        lines.append(
            f"predicted for {size} from the smaller sizes: {law.predicted.value:.3f} ({interval.low:.3f} to "
            f"{interval.high:.3f}); measured {measured:.3f}, {inside} of {counted(len(law.measured), 'run')} inside"
        )
    return lines


def changes_of(ability: Ability, axis: Axis) -> str:
    """Format where each seed changed."""
    places = [place for place in ability.changes(axis) if place is not None]
    if not places:
        return "-"
    if axis is Axis.LOSS:
        return ", ".join(f"{place:.3f}" for place in places)
    return ", ".join(short_number(place) for place in places)


def interval_of(estimate: Estimate) -> str:
    """Format an estimate with its interval, such as ``0.81 (0.76 to 0.85)``."""
    low, high = estimate.interval.low, estimate.interval.high
    if not (math.isfinite(low) and math.isfinite(high)):
        return f"{estimate.value:.3f} (no interval)"
    return f"{estimate.value:.3f} ({low:.3f} to {high:.3f})"


def score_of(measured: Measured | None) -> str:
    return "not measured" if measured is None else f"{measured.accuracy.value:.3f}"
