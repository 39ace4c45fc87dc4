"""The report as a picture: what was kept, why the rest was dropped, how long documents are, and the split."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from etude.data.report import DataReport, human_bytes
from etude.errors import InputError
from etude.files import write_atomic

_KEPT, _GONE, _HELD_OUT, _INK = "#2a6f97", "#c8553d", "#e9a03b", "#333333"
_ENDINGS = (".png", ".svg", ".pdf")


def draw_report(report: DataReport, path: Path) -> None:
    """Write the picture to ``path`` (.png, .svg or .pdf).

    Raises:
        InputError: another ending, or no such folder.
    """
    if path.suffix.lower() not in _ENDINGS:
        raise InputError(
            f"a picture cannot be written to '{path}': use a name that ends in .png, .svg or .pdf"
        )
    if not path.parent.is_dir():
        raise InputError(f"there is no folder '{path.parent}' for the picture: make it first")
    from io import BytesIO

    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6.2), layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=(3, 1.2), width_ratios=(1.25, 1))
    _draw_outcomes(figure.add_subplot(grid[0, 0]), report.facts)
    _draw_lengths(figure.add_subplot(grid[0, 1]), report.facts)
    _draw_split(figure.add_subplot(grid[1, :]), report)
    looked = report.facts["sources"]["looked_at"]
    title = ", ".join(looked[:2]) + (f" and {len(looked) - 2} more" if len(looked) > 2 else "")
    figure.suptitle(
        f"{title}: {human_bytes(report.facts['kept']['bytes'])} of text kept", color=_INK, parse_math=False
    )
    page = BytesIO()
    figure.savefig(page, format=path.suffix[1:].lower(), dpi=130)
    write_atomic(path, page.getvalue())


def _draw_outcomes(axes: Any, facts: dict[str, Any]) -> None:
    bars = [("kept", facts["kept"]["documents"], human_bytes(facts["kept"]["bytes"]), _KEPT)]
    for reason, dropped in facts["dropped"].items():
        bars.append((f"dropped: {reason}", dropped["documents"], human_bytes(dropped["bytes"]), _GONE))
    skipped = list(facts["sources"]["skipped"].items())
    for reason, count in skipped[:7]:
        bars.append((f"skipped: {reason}", count, "", _GONE))
    if len(skipped) > 7:
        bars.append(("skipped: other reasons", sum(count for _, count in skipped[7:]), "", _GONE))
    places = range(len(bars))
    axes.barh(
        places,
        [bar[1] for bar in bars],
        color=[bar[3] for bar in bars],
        height=0.62,
        edgecolor=[bar[3] for bar in bars],
        linewidth=1.5,
    )
    for place, (_, count, size, _) in zip(places, bars, strict=True):
        label = f" {count:,}" + (f"  ({size})" if size else "")
        axes.text(count, place, label, va="center", ha="left", color=_INK, fontsize=9)
    axes.set_yticks(list(places), [_short(bar[0]) for bar in bars], parse_math=False)
    axes.set_ylim(max(len(bars), 4) - 0.4, -0.6)
    axes.set_xlim(0, max(bar[1] for bar in bars) * 1.32)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.locator_params(axis="x", nbins=5, integer=True)
    axes.set_xlabel("documents (skipped: files or rows)")
    axes.set_title("What was kept, and why the rest was not", loc="left", fontsize=10)
    _plain(axes)


def _draw_lengths(axes: Any, facts: dict[str, Any]) -> None:
    lows = [int(low) for low in facts["lengths"]]
    powers = list(range(min(lows).bit_length(), max(lows).bit_length() + 1))
    counts = [facts["lengths"].get(str(2 ** (power - 1)), 0) for power in powers]
    axes.bar(powers, counts, width=0.9, color=_KEPT)
    step = -(-len(powers) // 5)
    edges = powers[::step]
    axes.set_xticks(
        [edge - 0.5 for edge in edges], [human_bytes(2 ** (edge - 1)) for edge in edges], fontsize=8
    )
    axes.set_xlim(powers[0] - 1.5, powers[-1] + 1.5)
    axes.set_ylabel("documents")
    axes.set_xlabel("length")
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_title("Length of the kept documents", loc="left", fontsize=10)
    _plain(axes)


def _draw_split(axes: Any, report: DataReport) -> None:
    facts = report.facts
    left = 0
    total = sum(facts["split"][part]["bytes"] for part in ("train", "validation"))
    for part, colour in (("train", _KEPT), ("validation", _HELD_OUT)):
        size = facts["split"][part]["bytes"]
        axes.barh([0], [size], left=[left], color=colour, height=0.5)
        label = f"{part}: {human_bytes(size)}, {size / total:.1%}, {facts['tokens'][part]:,} tokens"
        at, side = (0, "left") if part == "train" else (total, "right")
        axes.text(at, 0.34, label, ha=side, va="bottom", color=_INK, fontsize=9)
        left += size
    remark = textwrap.fill(report.split_remark(), 105, max_lines=2)
    axes.text(0, -0.36, remark, ha="left", va="top", color=_INK, fontsize=9)
    axes.set_ylim(-1.1, 0.75)
    axes.set_xlim(0, total)
    axes.set_title(f"Split by {facts['split']['rule']}", loc="left", fontsize=10)
    axes.set_axis_off()


def _plain(axes: Any) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _short(text: str, limit: int = 42) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
