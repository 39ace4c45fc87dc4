"""Layout of a plot: labels that do not overlap, ticks, the kind of axis, smoothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def place_labels(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Return positions near `wanted`, at least `gap` apart, within [low, high], in the same order of height.

    They minimise the sum of squared moves. After subtracting i * gap from the i-th lowest position, "at least a gap
    apart" means "not decreasing", so this is an isotonic regression, solved by pooling adjacent violators. Clipping its
    solution gives the best one within bounds. Labels that need more space than [low, high] are spread evenly over it.
    """
    if not wanted:
        return []
    count = len(wanted)
    gap = min(gap, (high - low) / max(1, count - 1))
    order = sorted(range(count), key=lambda index: wanted[index])
    pools: list[tuple[float, int]] = []  # (mean, number of labels) of adjacent labels that move together
    for rank, index in enumerate(order):
        mean, size = wanted[index] - rank * gap, 1
        while pools and pools[-1][0] > mean:
            other, others = pools.pop()
            mean, size = (mean * size + other * others) / (size + others), size + others
        pools.append((mean, size))
    level = np.repeat([mean for mean, _ in pools], [size for _, size in pools])
    level = np.clip(level, low, max(low, high - (count - 1) * gap))
    placed = [0.0] * count
    for rank, index in enumerate(order):
        placed[index] = float(level[rank]) + rank * gap
    return placed


def prefers_log(steps: Sequence[int], values: Sequence[float]) -> bool:
    """Return whether more than half of the fall happened in the first tenth of the steps.

    A linear axis would squeeze the part in which most is learned against its left edge.
    """
    points = [(step, value) for step, value in zip(steps, values, strict=True) if np.isfinite(value)]
    if len(points) < 3 or points[-1][0] < 20:
        return False
    tenth = float(np.interp(points[-1][0] / 10, [p[0] for p in points], [p[1] for p in points]))
    fall = points[0][1] - min(value for _, value in points)
    return fall > 0 and points[0][1] - tenth > fall / 2


def log_ticks(threshold: float, last: float) -> list[float]:
    """Return 0, then 1, 2 and 5 times each power of ten from `threshold` to `last`; only the powers if many."""
    powers = range(int(np.floor(np.log10(threshold))), int(np.floor(np.log10(last))) + 1)
    factors = (1, 2, 5) if len(powers) <= 4 else (1,)
    ticks = [factor * 10.0**power for power in powers for factor in factors]
    return [0.0, *(tick for tick in ticks if threshold <= tick <= last)]


def smoothed(values: Floats, share: float = 0.05) -> Floats:
    """Return, for each value, the mean of the latest `share` of all values so far, without NaN and infinity.

    A window that grows with the step smooths both ends of a logarithmic axis equally. A fixed one would blur the
    beginning.
    """
    finite = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(finite)])
    ends = np.arange(1, len(values) + 1)
    starts = ends - np.maximum(1, (share * ends).astype(np.int64))
    with np.errstate(invalid="ignore", divide="ignore"):
        means = (sums[ends] - sums[starts]) / (counts[ends] - counts[starts])
    return np.asarray(means, np.float64)


def thinned(steps: Floats, limit: int, *, logarithmic: bool) -> npt.NDArray[np.int64]:
    """Return the indices of at most `limit` of the ascending `steps`, evenly spread along the axis, ends included."""
    if len(steps) <= limit:
        return np.arange(len(steps))
    along = np.log1p(steps) if logarithmic else steps
    targets = np.linspace(along[0], along[-1], limit)
    return np.unique(np.minimum(np.searchsorted(along, targets), len(steps) - 1))


def short_number(value: float) -> str:
    """Format 1234567 as "1.2 M": at most three significant figures and a letter."""
    for size, letter in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= 0.9995 * size:
            scaled = value / size
            return (f"{scaled:.0f}" if scaled >= 99.5 else f"{scaled:.2g}") + letter
    return f"{value:.0f}"
