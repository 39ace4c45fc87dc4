"""Sums over documents that can be added part by part and still give means with intervals.

Tokens of one document are not independent, so an interval counts documents. It needs only six sums per bin, however
many documents there are: memory is constant, and parts measured by different processes can be added.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etude.evaluate.statistics import Estimate, Interval, Z

REPLICATES = 200
"""Resamplings of the documents for the interval of a calibration error."""

Floats = NDArray[np.float64]


class RatioSums:
    """The mean of a value over tokens (or bytes) in each of several bins, with documents as clusters.

    The rows of `sums` run over the documents with anything in the bin: their number, and the sums of n, s, n squared,
    n s, and s squared, where a document contributes n tokens whose values sum to s.
    """

    def __init__(self, bins: int, sums: Floats | None = None) -> None:
        self.sums = np.zeros((6, bins)) if sums is None else sums

    def add(self, counts: Floats, totals: Floats) -> None:
        """Add one document, bin by bin."""
        self.sums += np.stack([counts > 0, counts, totals, counts**2, counts * totals, totals**2])

    def __iadd__(self, other: RatioSums) -> RatioSums:
        self.sums += other.sums
        return self

    @property
    def counts(self) -> list[int]:
        """Tokens in each bin."""
        return [int(count) for count in self.sums[1]]

    def estimates(self) -> list[Estimate | None]:
        """Return a mean for each bin, None if empty. With a single document, the interval is infinite."""
        return [_estimate(*column) for column in self.sums.T.tolist()]

    def to_json(self) -> Any:
        return self.sums.tolist()

    @classmethod
    def from_json(cls, content: Any) -> RatioSums:
        sums = np.array(content, np.float64)
        return cls(sums.shape[1], sums)


def _estimate(groups: float, n: float, s: float, nn: float, ns: float, ss: float) -> Estimate | None:
    """Compute the ratio estimator of `etude.evaluate.statistics`, with groups as clusters, from its sums."""
    if not n:
        return None
    value = s / n
    squares = max(0.0, ss - 2 * value * ns + value**2 * nn)  # of the documents' deviations from the mean
    error = math.sqrt(squares * groups / (groups - 1)) / n if groups > 1 else math.inf
    return Estimate(value, error, Interval(value - Z * error, value + Z * error), int(groups))


class CalibrationSums:
    """Confidence of first guesses against how often they are right, in bins of equal width of the probability.

    Beside the sums, `resampled` holds the same for `REPLICATES` resamplings of the documents: each document counts
    Poisson(1) times in each (the bootstrap for streaming data). The draws depend only on the document's number, so
    sums of parts equal the sums of one process.
    """

    def __init__(self, bins: int) -> None:
        self.bins = bins
        self.gaps = RatioSums(bins)
        self.confidences = np.zeros(bins)
        self.rights = np.zeros(bins)
        self.resampled = np.zeros((REPLICATES, 2, bins))

    def add(self, confidences: Floats, credits: Floats, number: int) -> None:
        """Add one document, the `number`-th of all."""
        places = np.minimum((confidences * self.bins).astype(np.int64), self.bins - 1)
        counts = np.bincount(places, minlength=self.bins).astype(np.float64)
        sure = np.bincount(places, confidences, self.bins).astype(np.float64)
        right = np.bincount(places, credits, self.bins).astype(np.float64)
        self.gaps.add(counts, right - sure)
        self.confidences += sure
        self.rights += right
        weights = np.random.default_rng([number, REPLICATES]).poisson(1.0, REPLICATES)
        self.resampled += weights[:, None, None] * np.stack([counts, right - sure])

    def __iadd__(self, other: CalibrationSums) -> CalibrationSums:
        self.gaps += other.gaps
        self.confidences += other.confidences
        self.rights += other.rights
        self.resampled += other.resampled
        return self

    def expected_error(self, documents: int) -> Estimate:
        """Return the mean distance between confidence and share right, weighted by tokens (ECE; Naeini et al. 2015).

        Noise in a bin can only increase a distance, and resampling increases it once more. So the interval is reflected
        (the estimate minus the resamplings' excess over it) and not below 0.
        """
        value = float(_distance(self.gaps.sums[1:3]))
        if documents < 2:
            return Estimate(value, math.inf, Interval(0.0, math.inf), documents)
        distances = _distance(np.swapaxes(self.resampled, 0, 1))
        low, high = np.quantile(distances[np.isfinite(distances)], [0.025, 0.975])
        interval = Interval(max(0.0, 2 * value - float(high)), max(0.0, 2 * value - float(low)))
        return Estimate(value, float(np.nanstd(distances, ddof=1)), interval, documents)

    def to_json(self) -> Any:
        return {
            "gaps": self.gaps.to_json(),
            "confidences": self.confidences.tolist(),
            "rights": self.rights.tolist(),
            "resampled": self.resampled.tolist(),
        }

    @classmethod
    def from_json(cls, content: Any) -> CalibrationSums:
        sums = cls(len(content["rights"]))
        sums.gaps = RatioSums.from_json(content["gaps"])
        sums.confidences = np.array(content["confidences"])
        sums.rights = np.array(content["rights"])
        sums.resampled = np.array(content["resampled"])
        return sums


def _distance(sums: Floats) -> Floats:
    """Return the distances of (2, ..., bins) counts and gaps; NaN if a resampling drew no document."""
    counts, gaps = sums
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.abs(gaps).sum(-1) / counts.sum(-1))


def pooled(values: Floats, places: NDArray[np.int64], bins: int) -> tuple[Floats, Floats]:
    """Return counts and totals of one document's values, bin by bin."""
    return (
        np.bincount(places, minlength=bins).astype(np.float64),
        np.bincount(places, values, bins).astype(np.float64),
    )
