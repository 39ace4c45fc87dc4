"""Plot what became of the answers that a run sampled in its steps: how many are right, and how long they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from etude.evaluate.loss_plot.pairs import dress
from etude.run.history import RunHistory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SMOOTHED = 20
"""The lines are means of a run's steps in so many parts: a step samples few answers."""


def draw_answers(run: RunHistory, size: tuple[float, float], colours: tuple[str, ...], ink: str) -> Figure:
    """Draw the shares of right answers, of answers that end, and of questions with both kinds; and the length.

    Args:
        size: inches.
        colours: of these three, of which the first is also that of the length.
        ink: of the texts.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    shares, lengths = figure.subplots(1, 2)
    parts = np.array_split(np.arange(len(run.rewards)), min(SMOOTHED, len(run.rewards)))

    def means(name: str) -> list[float]:
        return [float(np.mean([getattr(run.rewards[at], name) for at in part])) for part in parts]

    steps = means("step")
    labels = {"right": "right", "ended": "ended by itself", "mixed": "questions with right and wrong ones"}
    for (name, label), colour in zip(labels.items(), colours, strict=False):
        shares.plot(steps, means(name), color=colour, marker=".", label=label)
    shares.set_ylim(0, 1.03)
    shares.set_title(f"share of {run.rewards[-1].num_answers:,} sampled answers", color=ink)
    lengths.plot(steps, means("tokens"), color=colours[0], marker=".", label="tokens of an answer")
    lengths.set_ylim(bottom=0)
    for axes in (shares, lengths):
        dress(axes, ink)
    return figure
