"""The in-context curve: how much better a model predicts the more of a text it has read.

Counting reads only the last few bytes, so its curve is flat after them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from etude.errors import InputError
from etude.evaluate.statistics import Estimate, mean


@dataclass(frozen=True)
class Span:
    """Positions [start, end) of the windows, and their mean loss."""

    start: int
    end: int
    loss: Estimate


@dataclass(frozen=True)
class InContext:
    """How the loss falls along the context.

    spans: the curve, finer at low positions; gain: loss of the late positions minus that of the early ones, in nats per
    token, negative if the model learns from its context. The difference is taken within each window, and its interval
    counts windows (or documents), not tokens.
    """

    spans: tuple[Span, ...]
    early: tuple[int, int]
    late: tuple[int, int]
    gain: Estimate

    @property
    def learns(self) -> bool:
        return self.gain.interval.high < 0


def in_context(losses: NDArray[np.float64], groups: Sequence[str] | None = None) -> InContext:
    """Compute the curve of losses (window, position), NaN if unscored; windows of one group (document) count together.

    The early positions are the second tenth of the window (Olsson et al. 2022 take position 50 of 512); the late ones
    are its last tenth. Windows without a loss in both do not count for the gain.
    Raises InputError for fewer than two windows or 20 positions.
    """
    if losses.ndim != 2 or losses.shape[0] < 2 or losses.shape[1] < 20:
        raise InputError(
            f"an in-context curve needs two windows of 20 tokens or more, not {' by '.join(map(str, losses.shape))}: "
            "use more held-out text or a longer context"
        )
    names = list(groups) if groups is not None else [""] * len(losses)
    length = losses.shape[1]
    tenth = length // 10
    early, late = (tenth, 2 * tenth), (length - tenth, length)
    pairs = [
        (float(a), float(b), name)
        for a, b, name in zip(_means(losses, early), _means(losses, late), names, strict=True)
        if not (np.isnan(a) or np.isnan(b))
    ]
    if len(pairs) < 2:
        raise InputError(
            "fewer than two windows are scored both early and late: use longer held-out documents"
        )
    gain = mean([b - a for a, b, _ in pairs], [name for *_, name in pairs])
    return InContext(tuple(_spans(losses, names)), early, late, gain)


def _means(losses: NDArray[np.float64], where: tuple[int, int]) -> NDArray[np.float64]:
    """Return the mean loss of each window between two positions; NaN if none is scored."""
    part = losses[:, where[0] : where[1]]
    counts = (~np.isnan(part)).sum(1)
    return np.where(counts > 0, np.nansum(part, 1) / np.maximum(counts, 1), np.nan)


def _spans(losses: NDArray[np.float64], names: Sequence[str]) -> list[Span]:
    """Return about four spans for each doubling of the position."""
    length = losses.shape[1]
    edges = sorted({0, length, *(int(2 ** (at / 4)) for at in range(4 * length.bit_length()))})
    edges = [edge for edge in edges if edge <= length]
    spans = []
    for start, end in pairwise(edges):
        means = _means(losses, (start, end))
        scored = [at for at, value in enumerate(means) if not np.isnan(value)]
        if scored:
            loss = mean([float(means[at]) for at in scored], [names[at] for at in scored])
            spans.append(Span(start, end, loss))
    return spans
