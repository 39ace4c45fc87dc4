"""Plot what became of the held-out pairs of a run: the chosen and the rejected answers, apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from etude.run.history import RunHistory

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CHOSEN, REJECTED = "chosen", "rejected"


def draw_pairs(run: RunHistory, size: tuple[float, float], colours: tuple[str, ...], ink: str) -> Figure:
    """Draw by how much the log-probabilities of both answers changed since step 0, and the loss of the pairs.

    Args:
        size: inches.
        colours: of the chosen answers, the rejected answers, and the loss.
        ink: of the texts.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    answers, pairs = figure.subplots(1, 2)
    first, steps = run.preferences[0], [event.step for event in run.preferences]
    for name, colour in zip((CHOSEN, REJECTED), colours, strict=False):
        changes = [getattr(event, name) - getattr(first, name) for event in run.preferences]
        answers.plot(steps, changes, color=colour, marker=".", label=f"{name} answers")
    answers.axhline(0, color=ink, linewidth=0.6)
    answers.set_title("log-probability of an answer since step 0", color=ink)
    answers.set_ylabel("nats per answer")
    losses = [event.loss for event in run.preferences]
    shares = [event.accuracy for event in run.preferences]
    pairs.plot(steps, losses, color=colours[2], marker=".", label="loss (nats per pair)")
    pairs.plot(steps, shares, color=colours[0], marker=".", linestyle="--", label="share with a gain")
    pairs.set_ylim(bottom=0)
    pairs.set_title(f"{run.preferences[-1].num_pairs:,} held-out pairs", color=ink)
    for axes in (answers, pairs):
        dress(axes, ink)
    return figure


def dress(axes: Axes, ink: str) -> None:
    """Give axes of steps the colours of the plot, and a legend."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_facecolor("none")
    axes.tick_params(colors=ink, labelsize=9)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(ink)
    for side in axes.spines.values():
        side.set_color(ink)
    axes.legend(frameon=False, labelcolor=ink, fontsize=9)
