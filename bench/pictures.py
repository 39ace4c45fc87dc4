"""Draw the plots of the benchmarks as PNG on a light background: bars with their spread, and curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from etude.show.layout import place_labels
from harness import Spread

LABEL_GAP = 0.035
"""Least distance between the names of two levels, as a share of the height."""
INK, FAINT, GRID = "#1a1a1a", "#5f6368", "#e6e6e6"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
"""The palette of Okabe and Ito, whose colours remain distinct under common colour blindness."""


def draw_bars(
    file: Path, title: str, unit: str, groups: Mapping[str, Mapping[str, Spread]], *, note: str = ""
) -> None:
    """Draw a bar for each contestant in each group, from 0, with a whisker from the lowest round to the highest."""
    figure, axes = _figure(3.4 + 1.0 * max(3, len(groups)), 4.2)
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    width = 0.8 / max(1, len(names))
    for place, name in enumerate(names):
        at, heights, whiskers = [], [], []
        for column, group in enumerate(groups.values()):
            if name in group:
                at.append(column - 0.4 + (place + 0.5) * width)
                heights.append(group[name].median)
                whiskers.append((group[name].median - group[name].low, group[name].high - group[name].median))
        lines = {"ecolor": FAINT, "elinewidth": 1.0, "capsize": 2}
        axes.bar(at, heights, width * 0.92, yerr=list(zip(*whiskers, strict=True)), color=_colour(place),
                 label=name, error_kw=lines)  # fmt: skip
    axes.set_xticks(range(len(groups)), list(groups))
    axes.set_ylabel(unit, color=INK)
    axes.grid(axis="y", color=GRID)
    _finish(figure, axes, file, title, note)


def draw_curves(
    file: Path,
    title: str,
    labels: tuple[str, str],
    curves: Mapping[str, Sequence[tuple[Sequence[float], Sequence[float]]]],
    *,
    levels: Mapping[str, float] | None = None,
    range_y: tuple[float, float] | None = None,
    note: str = "",
) -> None:
    """Draw curves over a logarithmic x, a line for each round of a contestant, with named horizontal ``levels``."""
    figure, axes = _figure(8.4, 4.8)
    for place, (name, rounds) in enumerate(curves.items()):
        for count, (across, up) in enumerate(rounds):
            label = name if count == 0 else None
            axes.plot(
                across, up, color=_colour(place), label=label, linewidth=1.6, marker="o", markersize=2.5
            )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel(labels[0], color=INK)
    axes.set_ylabel(labels[1], color=INK)
    axes.grid(color=GRID)
    if range_y:
        axes.set_ylim(range_y)
    named = levels or {}
    low, high = axes.get_ylim()
    places = place_labels(list(named.values()), LABEL_GAP * (high - low), low, high)
    for (name, level), place in zip(named.items(), places, strict=True):
        axes.axhline(level, color=FAINT, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
        axes.annotate(
            name, (1.005, place), xycoords=("axes fraction", "data"), va="center", fontsize=8, color=FAINT
        )
    _finish(figure, axes, file, title, note)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _finish(figure: Any, axes: Any, file: Path, title: str, note: str) -> None:
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=FAINT, labelsize=9)
    axes.set_title(title, loc="left", color=INK, weight="bold", fontsize=12)
    if len(axes.containers) > 0:  # bars fill the frame
        axes.legend(frameon=False, fontsize=9, labelcolor=INK, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    else:
        axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    if note:
        figure.supxlabel(note, fontsize=8, color=FAINT, x=0.01, ha="left")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=150, facecolor="white", metadata={"Software": None})


def _colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)]
