"""The scores of one run on one probe, checkpoint by checkpoint."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from etude.evaluate.statistics import Estimate

Floats = NDArray[np.float64]
_LEAST_ERROR = 1e-9


@dataclass(frozen=True)
class Curve:
    """The scores of one seed, in the order of training.

    x: steps (or tokens, or FLOPs), ascending, not negative; margin: the continuous metric, nats above an equal share, 0
    at chance; accuracy: the thresholded metric; exact: share of open answers with every token right; independence: what
    `exact` would be if tokens were right independently of each other (p^L).
    Raises ValueError if these do not fit together.
    """

    seed: int
    x: tuple[float, ...]
    margin: tuple[Estimate, ...]
    accuracy: tuple[Estimate, ...]
    chance: float
    exact: tuple[Estimate, ...] | None = None
    independence: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        others = (self.margin, self.accuracy, self.exact, self.independence)
        if not self.x or any(values is not None and len(values) != len(self.x) for values in others):
            raise ValueError("a curve needs a point, and one value of each metric for each point")
        if any(after <= before for before, after in zip(self.x, self.x[1:], strict=False)) or self.x[0] < 0:
            raise ValueError("the points of a curve must ascend from 0 or above")

    @property
    def thresholded(self) -> tuple[Estimate, ...]:
        """The metric with a threshold: exact answers if they are open, else the share of right choices."""
        return self.accuracy if self.exact is None else self.exact


def log_positions(x: tuple[float, ...]) -> Floats:
    """Return natural logs; a first point at 0 is placed at half the next one."""
    points = np.array(x, np.float64)
    if points[0] == 0:
        points[0] = points[1] / 2 if len(points) > 1 else 1.0
    return np.asarray(np.log(points))


def values_of(estimates: tuple[Estimate, ...]) -> Floats:
    return np.array([estimate.value for estimate in estimates])


def errors_of(estimates: tuple[Estimate, ...]) -> Floats:
    """Return standard errors usable as weights: none is zero, infinite, or below half of the median.

    Items that are all answered alike have no spread; the other checkpoints provide one.
    """
    errors = np.array([estimate.standard_error for estimate in estimates])
    usable = errors[np.isfinite(errors) & (errors > 0)]
    if not len(usable):
        return np.ones(len(errors))
    errors = np.where(np.isfinite(errors), errors, usable.max())
    return np.asarray(np.maximum(errors, max(np.median(usable) / 2, _LEAST_ERROR)))
