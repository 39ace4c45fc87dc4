"""Plot the loss curves of runs with the n-gram rungs that they passed, as PNG and SVG."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from etude.errors import InputError
from etude.evaluate.loss_plot.answers import draw_answers
from etude.evaluate.loss_plot.axes import StepAxis, add_tokens_axis, bits_range, curve, last_result
from etude.evaluate.loss_plot.pairs import draw_pairs
from etude.evaluate.loss_plot.samples import Fonts, SamplePanel
from etude.files import write_atomic, write_failure
from etude.run.history import RunHistory
from etude.run.ladder import Ladder
from etude.run.record import RunRecord
from etude.show.layout import place_labels, smoothed, thinned

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, AXES_HEIGHT = 10.6, 4.6  # inches
LEFT, RIGHT, BOTTOM = 0.75, 2.95, 0.6
LABEL_SIZE = 9.0  # points
LABEL_GAP = 1.35 * LABEL_SIZE / 72 / AXES_HEIGHT  # of the axes' height
POINTS_DRAWN = 2000
OTHER_FORMATS = {".pdf", ".jpg", ".jpeg", ".gif", ".webp", ".eps", ".tif", ".tiff", ".bmp"}

DASHES = ("-", (0, (6, 2)), (0, (2, 1.5)))


@dataclass(frozen=True)
class Theme:
    """Colours. Those of curves are Okabe & Ito's, which remain distinct under the common colour blindnesses."""

    background: str
    ink: str
    faint: str
    grid: str
    training: str
    validation: str
    rung: str
    curves: tuple[str, ...]


THEMES = {
    "light": Theme(
        "#ffffff",
        "#1a1a1a",
        "#5f6368",
        "#e6e6e6",
        "#56B4E9",
        "#0072B2",
        "#D55E00",
        ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"),
    ),
    "dark": Theme(
        "#14161a",
        "#e8e6e3",
        "#a3a8ae",
        "#2a2e35",
        "#2c6f9e",
        "#56B4E9",
        "#E69F00",
        ("#56B4E9", "#E69F00", "#1fbf92", "#CC79A7", "#F0E442", "#f07f3c"),
    ),
}


@dataclass(frozen=True)
class Label:
    """A text at the right edge for the line that ends at `height` (bits per byte)."""

    text: str
    height: float
    colour: str
    bold: bool = False


def plot_runs(
    run_folders: list[Path], out: Path | None = None, *, theme: Literal["light", "dark"] = "light"
) -> list[Path]:
    """Draw the loss curves of one run, or compare several; return the paths of the PNG and the SVG.

    For a run on pairs of answers, also draw what became of its held-out pairs; for one on sampled answers, what became
    of these. Return those paths too.

    `out` names both files, with or without .png or .svg, or a folder for them; without it they are written to the
    first run's `derived` folder. Raises InputError for no runs, a folder that is not a run, a run without a validation
    result, or another picture format; EtudeError if the files cannot be written.
    """
    if theme not in THEMES:
        raise ValueError(f"theme must be one of {', '.join(THEMES)}, not {theme}")
    if not run_folders:
        raise InputError("nothing to plot: name a run, such as `etude plot runs/first`")
    runs = [RunRecord.open(folder).history for folder in run_folders]
    for run in runs:
        if not any(math.isfinite(evaluation.bits_per_byte) for evaluation in run.evals):
            raise InputError(f"{run.folder} has no validation result yet: plot it after its first evaluation")
    png, svg = _destinations(runs, out, theme)
    colours = THEMES[theme]
    _draw_to({"png": png, "svg": svg}, lambda: _figure(runs, colours), colours)
    draw = draw_pairs if runs[0].preferences else draw_answers if runs[0].rewards else None
    if len(runs) > 1 or draw is None:
        return [png, svg]
    what = "pairs" if runs[0].preferences else "answers"
    others = [path.with_name(f"{path.stem}-{what}{path.suffix}") for path in (png, svg)]
    curves = (colours.curves[2], colours.curves[1], colours.validation)
    size = (WIDTH, AXES_HEIGHT)
    _draw_to(
        dict(zip(("png", "svg"), others, strict=True)),
        lambda: draw(runs[0], size, curves, colours.ink),
        colours,
    )
    return [png, svg, *others]


def _destinations(runs: list[RunHistory], out: Path | None, theme: str) -> tuple[Path, Path]:
    stem = ("loss" if len(runs) == 1 else "comparison") + ("-dark" if theme == "dark" else "")
    if out is None:
        base = runs[0].folder / "derived" / stem
    elif out.is_dir():
        base = out / stem
    elif out.suffix.lower() in OTHER_FORMATS:
        raise InputError(f"pictures are written as .png and .svg, not {out.suffix}: use --out {out.stem}.svg")
    else:
        base = out.with_suffix("") if out.suffix.lower() in {".png", ".svg"} else out
    try:
        base.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_failure(base.parent, error) from error
    return base.with_name(base.name + ".png"), base.with_name(base.name + ".svg")


def _draw_to(files: dict[str, Path], draw: Callable[[], Figure], theme: Theme) -> None:
    import matplotlib
    from matplotlib.style import context

    settings: Any = {"svg.hashsalt": "etude", "font.family": "DejaVu Sans", "text.parse_math": False}
    # "default" first, so that the user's own matplotlib settings do not change the plot.
    with context("default"), matplotlib.rc_context(settings):
        figure = draw()
        for kind, path in files.items():
            content = BytesIO()
            metadata = {"Software": None} if kind == "png" else {"Date": None}
            figure.savefig(content, format=kind, dpi=160, facecolor=theme.background, metadata=metadata)
            write_atomic(path, content.getvalue())


def _figure(runs: list[RunHistory], theme: Theme) -> Figure:
    from matplotlib.figure import Figure

    fonts = Fonts.find()
    panel = SamplePanel.of(runs[0], fonts, WIDTH - 2 * LEFT) if len(runs) == 1 else None
    panel_height = panel.height if panel else 0.0
    top = 0.95 if len(runs) == 1 else 0.6
    height = top + AXES_HEIGHT + BOTTOM + panel_height
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.add_axes(
        (
            LEFT / WIDTH,
            (BOTTOM + panel_height) / height,
            (WIDTH - LEFT - RIGHT) / WIDTH,
            AXES_HEIGHT / height,
        )
    )
    ladder = _shared_ladder(runs)
    steps = StepAxis.of(runs)
    steps.apply(axes)
    axes.xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")
    axes.set_xlabel("step")
    axes.set_ylim(bits_range(runs, ladder))
    axes.set_ylabel("bits per byte")
    if len(runs) == 1:
        labels = _draw_run(axes, runs[0], theme, steps.logarithmic)
    else:
        labels = _draw_comparison(axes, runs, theme, steps.logarithmic, fonts)
    labels += _draw_rungs(axes, runs, ladder, theme)
    _draw_labels(axes, labels, theme)
    _dress(axes, theme)
    if len(runs) == 1:
        above = add_tokens_axis(axes, steps, runs[0])
        above.set_xlabel("tokens seen", color=theme.ink)
        above.tick_params(colors=theme.faint, labelsize=9)
    title = fonts.show(runs[0].name, 60) if len(runs) == 1 else f"{len(runs)} runs"
    figure.text(LEFT / WIDTH, 1 - 0.3 / height, title, size=13, weight="bold", color=theme.ink, va="center")
    if panel:
        panel.draw(figure, LEFT, theme.ink, theme.faint)
    return figure


def _shared_ladder(runs: list[RunHistory]) -> Ladder | None:
    """Return the ladder if every run was scored on the same text; otherwise rungs are meaningless."""
    first = runs[0].ladder
    return first if first and all(run.ladder == first for run in runs) else None


def _draw_run(axes: Axes, run: RunHistory, theme: Theme, logarithmic: bool) -> list[Label]:
    rate = run.bits_per_byte_per_nat
    if run.steps and rate is not None:
        steps = run.steps.column("step").astype(np.float64)
        losses = run.steps.column("loss") * rate
        shown = thinned(steps, POINTS_DRAWN, logarithmic=logarithmic)
        axes.plot(steps[shown], losses[shown], color=theme.training, linewidth=0.6, alpha=0.35)
        calm = smoothed(losses)[shown]
        axes.plot(steps[shown], calm, color=theme.training, linewidth=1.6, label="training, smoothed")
    _draw_validation(axes, curve(run), logarithmic, color=theme.validation, label="validation")
    return [
        *_draw_reference(axes, run, theme, logarithmic),
        Label(
            f"validation {last_result(run).bits_per_byte:.2f}",
            last_result(run).bits_per_byte,
            theme.validation,
            True,
        ),
    ]


def _draw_reference(axes: Axes, run: RunHistory, theme: Theme, logarithmic: bool) -> list[Label]:
    """Draw the loss on the reference text, of a run that has one: where it rises, the model forgets."""
    steps, values = curve(run, "references")
    if not any(map(math.isfinite, values)):
        return []
    colour = theme.curves[2]
    _draw_validation(axes, (steps, values), logarithmic, color=colour, label="reference text", linestyle="--")
    last = next(value for value in reversed(values) if math.isfinite(value))
    return [Label(f"reference {last:.2f}", last, colour, True)]


def _draw_validation(
    axes: Axes, points: tuple[list[int], list[float]], logarithmic: bool, **style: Any
) -> None:
    """Draw markers at measurements; a dotted line where a log axis stretches a long time without one."""
    steps, values = (np.array(column, np.float64) for column in points)
    markers: Any = {"marker": "o", "markersize": 4 if len(steps) <= 60 else 2.5, "clip_on": False}
    gaps = np.flatnonzero(steps[1:] > 4 * np.maximum(steps[:-1], 1)) if logarithmic else np.empty(0, np.int64)
    for gap in gaps:
        ends = slice(gap, gap + 2)
        axes.plot(steps[ends], values[ends], color=style["color"], linewidth=1, linestyle=":", zorder=4)
    broken = np.insert(steps, gaps + 1, np.nan), np.insert(values, gaps + 1, np.nan)
    axes.plot(*broken, linewidth=2, zorder=4, **markers, **style)


def _draw_comparison(
    axes: Axes, runs: list[RunHistory], theme: Theme, logarithmic: bool, fonts: Fonts
) -> list[Label]:
    labels = []
    for number, run in enumerate(runs):
        colour = theme.curves[number % len(theme.curves)]
        dashes: Any = DASHES[number // len(theme.curves) % len(DASHES)]
        _draw_validation(axes, curve(run), logarithmic, color=colour, linestyle=dashes)
        last = last_result(run)
        axes.hlines(last.bits_per_byte, last.step, axes.get_xlim()[1], colour, linestyle=":", linewidth=0.8)
        text = f"{fonts.show(run.name, 20)} {last.bits_per_byte:.2f}"
        labels.append(Label(text, last.bits_per_byte, colour, True))
    return labels


def _draw_rungs(axes: Axes, runs: list[RunHistory], ladder: Ladder | None, theme: Theme) -> list[Label]:
    """Draw a dashed line for each rung and, for a single run, a mark where the run passed it."""
    passed_at = runs[0].passed_at if len(runs) == 1 else {}
    labels, marks = [], []
    for rung in ladder.rungs if ladder else ():
        axes.axhline(rung.bits_per_byte, color=theme.faint, linewidth=0.8, linestyle=(0, (4, 3)), zorder=2)
        text = f"{rung.order}-gram {rung.bits_per_byte:.2f}"
        if rung.order in passed_at:
            text += f", passed at step {passed_at[rung.order]:,}"
            marks.append((passed_at[rung.order], rung.bits_per_byte))
        labels.append(Label(text, rung.bits_per_byte, theme.ink if rung.order in passed_at else theme.faint))
    if marks:
        axes.plot(
            *zip(*marks, strict=True),
            linestyle="none",
            marker="D",
            markersize=6,
            color=theme.rung,
            markeredgecolor=theme.background,
            label="n-gram model passed",
            zorder=6,
        )
    return labels


def _draw_labels(axes: Axes, labels: list[Label], theme: Theme) -> None:
    low, high = axes.get_ylim()
    wanted = [min(1.0, max(0.0, (label.height - low) / (high - low))) for label in labels]
    for label, at, height in zip(labels, wanted, place_labels(wanted, LABEL_GAP, 0, 1), strict=True):
        axes.plot(
            [1.0, 1.025],
            [at, height],
            transform=axes.transAxes,
            clip_on=False,
            color=label.colour if label.bold else theme.faint,
            linewidth=0.8,
        )
        axes.text(
            1.035,
            height,
            label.text,
            transform=axes.transAxes,
            va="center",
            size=LABEL_SIZE,
            color=label.colour,
            weight="bold" if label.bold else "normal",
        )


def _dress(axes: Axes, theme: Theme) -> None:
    axes.set_facecolor(theme.background)
    axes.grid(color=theme.grid, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=theme.faint, labelsize=9)
    for side, spine in axes.spines.items():
        spine.set_visible(side in {"left", "bottom"})
        spine.set_color(theme.faint)
    axes.xaxis.label.set_color(theme.ink)
    axes.yaxis.label.set_color(theme.ink)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(
            loc="upper right",
            fontsize=9,
            labelcolor=theme.ink,
            facecolor=theme.background,
            edgecolor="none",
            framealpha=0.9,
        )
