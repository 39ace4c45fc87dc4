"""The panels of the report's figures: which curves and levels are drawn against which axis."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from etude.emergence.picture import Level, Line, Panel, Point
from etude.emergence.study import Ability, Axis, LawOfStudy
from etude.evaluate.results import Measured
from etude.evaluate.statistics import Estimate


def panel_of(abilities: Sequence[Ability], axis: Axis, thresholded: bool) -> Panel:
    """Draw all seeds of all sizes; against parameters, the last score of each size, one line per seed."""
    if axis is Axis.PARAMETERS:
        lines = _over_sizes(abilities, thresholded)
    else:
        lines = [
            line
            for place, ability in enumerate(abilities)
            for line in _over_training(ability, axis, thresholded, place if len(abilities) > 1 else None)
        ]
    open_answer = any(curve.exact is not None for ability in abilities for curve in ability.curves)
    title = "Continuous: margin in nats"
    if thresholded:
        title = "Thresholded: " + ("share of exact answers" if open_answer else "share of right choices")
    return Panel(
        title,
        axis.words,
        tuple(lines),
        tuple(_levels(abilities[0], thresholded, open_answer)),
        logarithmic=axis is not Axis.LOSS,
        falling=axis is Axis.LOSS,
        least=0.0 if thresholded else None,
        most=1.0 if thresholded else None,
        span=0.5,
    )


def _levels(ability: Ability, thresholded: bool, open_answer: bool) -> list[Level]:
    """Return the levels of chance, counting and random weights for the metrics that they have."""
    levels = (
        []
        if thresholded and open_answer
        else [Level(ability.last.chance if thresholded else 0.0, "chance", "chance")]
    )
    for measured, name, kind in (
        (ability.counting, "n-gram", "counting"),
        (ability.random, "random", "random"),
    ):
        value = None if measured is None else _level(measured, thresholded, open_answer)
        if value is not None:
            levels.append(Level(value, f"{name} {value:.2f}", kind))
    return levels


def _level(measured: Measured, thresholded: bool, open_answer: bool) -> float | None:
    if not thresholded:
        return measured.margin.value
    if open_answer:
        return None if measured.exact is None else measured.exact.exact.value
    return measured.accuracy.value


def _over_training(ability: Ability, axis: Axis, thresholded: bool, colour: int | None) -> list[Line]:
    lines = []
    changes = ability.changes(axis)
    for number, (records, curve) in enumerate(zip(ability.series, ability.curves, strict=True)):
        chosen = curve.thresholded if thresholded else curve.margin
        at = [axis.of(record) for record in records]
        own = number if colour is None else colour
        dash = 0 if colour is None else number
        points = tuple(_point(x, estimate) for x, estimate in zip(at, chosen, strict=True) if x is not None)
        if not points:
            continue
        if thresholded and curve.independence is not None:
            null = zip(at, curve.independence, strict=True)
            lines.append(Line(tuple(Point(x, y, y, y) for x, y in null if x is not None), own, dotted=True))
        lines.append(Line(points, own, dash, None if thresholded else changes[number]))
    return lines


def _over_sizes(abilities: Sequence[Ability], thresholded: bool) -> list[Line]:
    """Draw the last score of each size, one line per seed."""
    points: dict[int, list[Point]] = {}
    for ability in abilities:
        for curve in ability.curves:
            chosen = (curve.thresholded if thresholded else curve.margin)[-1]
            at = _point(float(ability.family.num_parameters), chosen)
            points.setdefault(curve.seed, []).append(at)
    return [Line(tuple(line), number) for number, line in enumerate(points.values())]


def _point(x: float, estimate: Estimate) -> Point:
    low, high = estimate.interval.low, estimate.interval.high
    return Point(
        x,
        estimate.value,
        low if math.isfinite(low) else estimate.value,
        high if math.isfinite(high) else estimate.value,
    )


def law_panel(law: LawOfStudy) -> Panel:
    """Draw the end of every run, the law, and the band that holds 95 % of new runs."""
    runs = law.law.runs
    sizes = sorted({run.parameters for run in runs})
    tokens = float(np.median([run.tokens for run in runs]))
    predictions = [
        (size, law.law.predict(size, tokens)) for size in np.geomspace(sizes[0], sizes[-1], 25).tolist()
    ]
    band = tuple(_point(size, estimate) for size, estimate in predictions)
    fitted = Line(tuple(Point(p.x, p.y, p.y, p.y) for p in band), 0, dotted=True)
    measured = tuple(Line((Point(run.parameters, run.loss, run.loss, run.loss),), 1) for run in runs)
    return Panel("validation loss, nats per token", "parameters", (fitted, *measured), band=band)
