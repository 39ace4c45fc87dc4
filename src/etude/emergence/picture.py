"""Ability curves as inline SVG: colours come from the page's style, so one figure serves light and dark themes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from etude.show.layout import place_labels, short_number

WIDTH, HEIGHT = 400.0, 250.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 84.0, 10.0, 38.0
LINE = 12.5
"""Height of a label."""
MOST_TICKS = 6
COLOURS = 6
DASHES = ("", "6 3", "2 3", "8 3 2 3")


@dataclass(frozen=True)
class Point:
    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True)
class Line:
    """The scores of a seed: `colour` and `dash` are numbers of the page's colours and of `DASHES`."""

    points: tuple[Point, ...]
    colour: int
    dash: int = 0
    changes_at: float | None = None
    dotted: bool = False


@dataclass(frozen=True)
class Level:
    """A horizontal line with its name."""

    y: float
    name: str
    kind: str


@dataclass(frozen=True)
class Scale:
    """A map from data to positions along one side of the figure."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False
    zero: float | None = None
    """The position of the value 0 on a logarithmic axis, as a data value."""

    @classmethod
    def of_x(cls, values: Iterable[float], *, logarithmic: bool, falling: bool) -> Scale:
        """Make a scale from the left edge to the right one; `falling` puts the largest value on the left."""
        known = sorted(set(values))
        zero = None
        if logarithmic:
            above = [value for value in known if value > 0] or [1.0]
            zero = above[0] / 2 if known and known[0] <= 0 else None
            known = [zero, *above] if zero is not None else above
        low, high = (known[0], known[-1]) if known else (0.0, 1.0)
        if low == high:
            low, high = (low / 2, high * 2) if logarithmic else (low - 1, high + 1)
        left, right = LEFT, WIDTH - RIGHT
        return cls(low, high, right if falling else left, left if falling else right, logarithmic, zero)

    def at(self, value: float) -> float:
        if self.logarithmic:
            if value <= 0:
                value = self.zero if self.zero is not None else self.low
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[tuple[float, str]]:
        """Return positions and labels of at most `MOST_TICKS` ticks."""
        if not self.logarithmic:
            values, digits = _round(self.low, self.high)
            return [(value, _plain(value, digits)) for value in values]
        powers = range(math.floor(math.log10(self.low)) - 1, math.ceil(math.log10(self.high)) + 1)
        values = []
        for factors in ((1, 2, 5), (1,)):
            values = [f * 10.0**power for power in powers for f in factors]
            lowest = self.low * 1.5 if self.zero is not None else self.low
            values = [value for value in values if lowest <= value <= self.high * 1.0001]
            if len(values) <= MOST_TICKS:
                break
        values = values[:: math.ceil(len(values) / MOST_TICKS)]
        named = [(value, short_number(value)) for value in values]
        return [(0.0, "0"), *named] if self.zero is not None else named


@dataclass(frozen=True)
class Panel:
    """One metric against one axis."""

    title: str
    across: str
    lines: tuple[Line, ...]
    levels: tuple[Level, ...] = ()
    logarithmic: bool = True
    falling: bool = False
    least: float | None = None
    most: float | None = None
    span: float = 1e-6
    """The vertical axis spans at least this much, so that noise looks small."""
    band: tuple[Point, ...] = ()

    def svg(self) -> str:
        """Return the figure; every text is escaped."""
        x = Scale.of_x(
            [p.x for line in self.lines for p in line.points] + [p.x for p in self.band],
            logarithmic=self.logarithmic,
            falling=self.falling,
        )
        y = self._heights()
        parts = [
            f'<svg viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" role="img" aria-label="{escape(self._description())}">',
            *self._axes(x, y),
        ]
        if self.band:
            parts.append(_band(self.band, x, y, "band"))
        parts += self._levels(y)
        for line in self.lines:
            parts += _drawn(line, x, y)
        return "\n".join([*parts, "</svg>"])

    def _description(self) -> str:
        ends = [line.points[-1].y for line in self.lines if line.points and not line.dotted]
        span = f"; ends at {min(ends):.3g} to {max(ends):.3g}" if ends else ""
        return f"{self.title} against {self.across}{span}"

    def _heights(self) -> Scale:
        values = [p.y for line in self.lines for p in line.points] + [level.y for level in self.levels]
        values += [end for p in self.band for end in (p.low, p.high)]
        ends = [e for line in self.lines for p in line.points for e in (p.low, p.high) if math.isfinite(e)]
        low, high = min(values, default=0.0), max(values, default=1.0)
        room = max(high - low, self.span)
        low, high = max(min([low, *ends]), low - room / 3), min(max([high, *ends]), high + room / 3)
        short = max(0.0, self.span - (high - low)) / 2
        low = low - short - 0.05 * room if self.least is None else self.least
        high = high + short + 0.05 * room if self.most is None else self.most
        return Scale(low, high, HEIGHT - BOTTOM, TOP)

    def _axes(self, x: Scale, y: Scale) -> list[str]:
        left, right, bottom = LEFT, WIDTH - RIGHT, HEIGHT - BOTTOM
        parts = []
        for value, name in y.ticks():
            height = y.at(value)
            parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{height:.1f}" y2="{height:.1f}"/>')
            parts.append(f'<text x="{left - 6}" y="{height + 4:.1f}" text-anchor="end">{escape(name)}</text>')
        for value, name in x.ticks():
            place = x.at(value)
            parts.append(
                f'<line class="axis" x1="{place:.1f}" x2="{place:.1f}" y1="{bottom}" y2="{bottom + 4}"/>'
            )
            parts.append(
                f'<text x="{place:.1f}" y="{bottom + 16}" text-anchor="middle">{escape(name)}</text>'
            )
        parts.append(f'<line class="axis" x1="{left}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
        middle = (left + right) / 2
        parts.append(f'<text x="{middle}" y="{HEIGHT - 5}" text-anchor="middle">{escape(self.across)}</text>')
        return parts

    def _levels(self, y: Scale) -> list[str]:
        right = WIDTH - RIGHT
        wanted = [y.at(level.y) for level in self.levels]
        places = place_labels(wanted, LINE, TOP + 4, HEIGHT - BOTTOM)
        parts = []
        for level, height, label in zip(self.levels, wanted, places, strict=True):
            parts.append(
                f'<line class="level {level.kind}" x1="{LEFT}" x2="{right}" y1="{height:.1f}" y2="{height:.1f}"/>'
            )
            parts.append(
                f'<path class="lead" d="M{right} {height:.1f}L{right + 7} {label:.1f}"/>'
                f'<text class="name" x="{right + 9}" y="{label + 4:.1f}">{escape(level.name)}</text>'
            )
        return parts


def _drawn(line: Line, x: Scale, y: Scale) -> list[str]:
    """Draw a band of the intervals, the line, its points, and a mark where it changed."""
    colour = f"seed{line.colour % COLOURS}"
    path = "L".join(f"{x.at(p.x):.1f} {_clip(y, p.y):.1f}" for p in line.points)
    if line.dotted:
        return [f'<path class="null {colour}" d="M{path}"/>']
    dash = f' stroke-dasharray="{DASHES[line.dash % len(DASHES)]}"' if line.dash % len(DASHES) else ""
    parts = [_band(line.points, x, y, f"area {colour}"), f'<path class="curve {colour}" d="M{path}"{dash}/>']
    parts += [
        f'<circle class="dot {colour}" cx="{x.at(p.x):.1f}" cy="{_clip(y, p.y):.1f}" r="2"/>'
        for p in line.points
    ]
    if line.changes_at is not None:
        place, top = x.at(line.changes_at), HEIGHT - BOTTOM
        parts.append(
            f'<path class="change {colour}" d="M{place:.1f} {top - 2}l-5 -9h10z"><title>change point at '
            f"{escape(short_number(line.changes_at))}</title></path>"
        )
    return parts


def _band(points: Sequence[Point], x: Scale, y: Scale, kind: str) -> str:
    upper = [f"{x.at(p.x):.1f} {_clip(y, p.high):.1f}" for p in points]
    lower = [f"{x.at(p.x):.1f} {_clip(y, p.low):.1f}" for p in reversed(points)]
    return f'<path class="{kind}" d="M{"L".join(upper + lower)}Z"/>'


def _clip(y: Scale, value: float) -> float:
    return min(max(y.at(min(max(value, y.low - 1), y.high + 1)), TOP), HEIGHT - BOTTOM)


def _round(low: float, high: float) -> tuple[list[float], int]:
    """Return round numbers in a range, usually four to seven, and the digits that they need."""
    raw = (high - low) / 4
    power = math.floor(math.log10(raw))
    factor = min((1, 2, 5, 10), key=lambda factor: abs(math.log(factor * 10.0**power / raw)))
    step = factor * 10.0**power
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)], max(0, -power - (factor == 10))


def _plain(value: float, digits: int) -> str:
    if abs(value) >= 10000:
        return short_number(value)
    text = f"{value:.{digits}f}"
    return "0" if float(text) == 0 else text
