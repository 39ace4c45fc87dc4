"""Draw matrices into one PNG: patterns, activations and weights, in colour scales safe for colour-blind readers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from etude.errors import EtudeError, InputError
from etude.files import write_atomic, write_failure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = ((2, 2, 5.0), (12, 4, 3.4), (24, 6, 2.6), (48, 8, 2.2))
"""Up to so many pictures: columns, and inches of a picture. No file is wider than 18 inches or higher than 13."""
MOST_PICTURES = 48
"""Pictures in one file. Of a deeper network the first are drawn, and the title reports that."""
LABEL = 10
"""Characters of a label."""
LABELLED = 20
"""Largest number of tokens that the axes label."""
SIGNED, UNSIGNED = "PuOr", "cividis"
"""Orange below zero and purple above; dark to bright. Both are safe for the common colour blindnesses."""
GROUNDS = {"light": ("#ffffff", "#1a1a1a"), "dark": ("#15181c", "#e8e8e8")}


@dataclass(frozen=True)
class Picture:
    """A matrix to draw: rows downwards, columns to the right."""

    title: str
    values: Tensor  # (rows, columns)
    across: str
    down: str
    signed: bool
    mark: tuple[int, int] | None = None  # (row, column)
    labels: Sequence[str] = ()  # of both axes
    about: str = ""  # of all pictures in the file: which are shown, of how many, and why


def draw(pictures: Sequence[Picture], file: Path, theme: Literal["light", "dark"]) -> None:
    """Draw all ``pictures`` into one PNG.

    Raises:
        InputError: there is nothing to draw, or no such folder.
        EtudeError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    if not pictures:
        raise InputError("this has no picture: omit --png")
    if not file.absolute().parent.is_dir():
        raise InputError(f"no folder {file.parent} for the picture: make it first")
    drawn = pictures[:MOST_PICTURES]
    most, size = next((columns, size) for count, columns, size in COLUMNS if len(drawn) <= count)
    columns = min(most, len(drawn))
    rows = math.ceil(len(drawn) / columns)
    ground, ink = GROUNDS[theme]
    figure = Figure(figsize=(size * columns, size * 0.95 * rows), facecolor=ground, layout="constrained")
    for place, picture in enumerate(drawn):
        _draw_one(figure.add_subplot(rows, columns, place + 1), picture, ground, ink)
    about = f"the first {len(drawn)} of {len(pictures)}" if len(drawn) < len(pictures) else drawn[0].about
    if about:
        figure.suptitle(about, color=ink, fontsize=9, wrap=True)
    content = BytesIO()
    figure.savefig(content, format="png", dpi=130, facecolor=ground)
    try:
        write_atomic(file, content.getvalue())
    except (OSError, EtudeError) as error:
        raise write_failure(file, error) if isinstance(error, OSError) else error from error


def _draw_one(axes: Axes, picture: Picture, ground: str, ink: str) -> None:
    values = picture.values.detach().cpu().double().numpy()
    largest = float(abs(values).max()) or 1.0
    limits: dict[str, Any] = {"vmin": -largest, "vmax": largest, "cmap": SIGNED}
    if not picture.signed:
        limits = {"vmin": 0.0, "vmax": largest, "cmap": UNSIGNED}
    image = axes.imshow(values, aspect="auto", interpolation="nearest", **limits)
    if picture.mark is not None:
        row, column = picture.mark
        axes.plot(
            column, row, "s", markersize=9, markerfacecolor="none", markeredgecolor=ink, markeredgewidth=1.4
        )
    axes.set_facecolor(ground)
    axes.set_title(_shortened(picture.title), fontsize=8, color=ink)
    axes.set_xlabel(picture.across, fontsize=7, color=ink)
    axes.set_ylabel(picture.down, fontsize=7, color=ink)
    axes.tick_params(labelsize=6, colors=ink)
    if 0 < len(picture.labels) <= LABELLED:
        names = [label.replace("$", r"\$").replace("\n", "\\n") for label in picture.labels]
        names = [name if len(name) <= LABEL else f"{name[: LABEL - 1]}…" for name in names]
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
    bar = axes.figure.colorbar(image, ax=axes, fraction=0.05, pad=0.02)
    bar.ax.tick_params(labelsize=6, colors=ink)
    bar.outline.set_edgecolor(ink)  # type: ignore[operator]
    for spine in axes.spines.values():
        spine.set_edgecolor(ink)


def _shortened(text: str, width: int = 46) -> str:
    return text if len(text) <= width else f"...{text[3 - width :]}"
