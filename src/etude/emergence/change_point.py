"""Did a curve grow, or jump? Fit smooth shapes and change points over log x, and compare them by BIC.

A rise is smooth if its middle 80 % span at least a factor of 4 in x, and a change point if more than half of the whole
gain comes within a factor of 2. Between the two, whichever describes the points better counts, or neither.

Each shape is a grid of places and widths; for each grid point, the remaining coefficients are a weighted linear
regression. The fit is exact up to the grid, deterministic, and takes milliseconds. The points' standard errors set
their relative weights. The actual scatter is estimated (one more parameter), because items that do not change between
checkpoints scatter less than their standard errors, and an unstable training run scatters more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FEWEST_POINTS = 8
SMOOTH_RISE = math.log(4)
"""The shortest rise of a smooth curve, from 10 % to 90 %, in natural logs of x."""
SHARP_RISE = math.log(2)
"""The longest rise of a change point."""
BEFORE, AFTER = 3, 2
"""Points that a change point needs on either side: a single point may always be an outlier."""
LEAST_SCATTER = 0.3
"""Points scatter by at least this share of their standard errors, even if a fit with many parameters is closer."""
_PLACES, _WIDTHS = 41, 11


@dataclass(frozen=True)
class Fit:
    """The best fit of a shape.

    num_parameters: including place, width and scatter; values: of the curve at the points; place: where the change is,
    in log x.
    """

    shape: str
    num_parameters: int
    bic: float
    values: Floats
    place: float | None = None


@dataclass(frozen=True)
class Comparison:
    """The best fit of each kind; `change` is None when there are too few points for one."""

    constant: Fit
    smooth: Fit
    change: Fit | None

    @property
    def advantage(self) -> float:
        """BIC by which a change point beats every other fit; -inf when there is none."""
        if self.change is None:
            return -math.inf
        return min(self.constant.bic, self.smooth.bic) - self.change.bic

    @property
    def smoothness(self) -> float:
        """BIC by which a smooth curve, rising or not, beats every other fit."""
        others = [self.constant.bic, *([self.change.bic] if self.change else [])]
        return min(others) - self.smooth.bic

    @property
    def best(self) -> Fit:
        fits = [self.constant, self.smooth, *([self.change] if self.change else [])]
        return min(fits, key=lambda fit: fit.bic)


def compare(positions: Floats, values: Floats, errors: Floats) -> Comparison:
    """Fit all shapes to `values` with standard errors `errors` at `positions` (log x, ascending)."""
    data = _Data(positions, values, errors)
    constant = data.fit("constant", 1, np.zeros((1, len(positions), 0)))
    smooth = min(_smooth(data), key=lambda fit: fit.bic, default=constant)
    change = None
    if len(positions) >= FEWEST_POINTS:
        change = min(_changes(data), key=lambda fit: fit.bic, default=None)
    return Comparison(constant, smooth, change)


def rise(positions: Floats, fitted: Floats) -> float:
    """Return log x between 10 % and 90 % of the gain of a fitted curve, within the points; inf without a gain."""
    gain = fitted[-1] - fitted[0]
    if not gain > 0:
        return math.inf
    share = (fitted - fitted[0]) / gain
    return _crossing(positions, share, 0.9) - _crossing(positions, share, 0.1)


def hidden_gain(positions: Floats, continuous: Floats, thresholded: Floats) -> float:
    """Return the share of its gain that `continuous` has made where `thresholded` has made 10 %; 0 without a gain."""
    gain, other = continuous[-1] - continuous[0], thresholded[-1] - thresholded[0]
    if not (gain > 0 and other > 0):
        return 0.0
    begins = _crossing(positions, (thresholded - thresholded[0]) / other, 0.1)
    return float((np.interp(begins, positions, continuous) - continuous[0]) / gain)


def _crossing(positions: Floats, share: Floats, level: float) -> float:
    """Return where a curve rises above `level` for good."""
    below = np.flatnonzero(share < level)
    at = int(below[-1])
    part = (level - share[at]) / (share[at + 1] - share[at])
    return float(positions[at] + part * (positions[at + 1] - positions[at]))


@dataclass(frozen=True)
class _Data:
    positions: Floats
    values: Floats
    errors: Floats

    @property
    def span(self) -> float:
        return float(self.positions[-1] - self.positions[0])

    def regressions(self, columns: Floats) -> tuple[Floats, Floats, Floats]:
        """Return (squared errors, coefficients (G, c), values) of G designs (G, n, c), each with a constant added."""
        weights = self.errors**-2.0
        weights = weights / weights.sum()
        middle = columns - np.einsum("n,gnc->gc", weights, columns)[:, None]
        level = float(weights @ self.values)
        square = np.einsum("n,gnc,gnd->gcd", weights, middle, middle)
        trace = np.einsum("gcc->g", square)[:, None, None] + 1e-300
        square = square + 1e-10 * trace * np.eye(columns.shape[2])
        moment = np.einsum("n,gnc,n->gc", weights, middle, self.values - level)
        coefficients = np.linalg.solve(square, moment[..., None])[..., 0]
        values = level + np.einsum("gnc,gc->gn", middle, coefficients)
        squares = (((values - self.values) / self.errors) ** 2).sum(-1)
        return squares, coefficients, values

    def bic(self, squares: float, num_parameters: int) -> float:
        """Return the BIC (Schwarz 1978) for normal errors of unknown scale in standard errors, up to a constant."""
        count = len(self.values)
        scatter = max(squares / count, LEAST_SCATTER**2)
        return count * math.log(scatter) + squares / scatter + (num_parameters + 1) * math.log(count)

    def fit(
        self,
        shape: str,
        num_parameters: int,
        columns: Floats,
        places: Floats | None = None,
        allowed: NDArray[np.bool_] | None = None,
        regressed: tuple[Floats, Floats, Floats] | None = None,
    ) -> Fit:
        squares, _, values = self.regressions(columns) if regressed is None else regressed
        if allowed is not None:
            squares = np.where(allowed, squares, np.inf)
        best = int(squares.argmin())
        return Fit(
            shape,
            num_parameters + 1,
            self.bic(float(squares[best]), num_parameters) if np.isfinite(squares[best]) else math.inf,
            values[best],
            None if places is None else float(places[best]),
        )


_SIGMOIDS: dict[
    str, tuple[Callable[[Floats], Floats], float]
] = {  # name: (the curve, its rise from 10 % to 90 % in widths)
    "logistic": (lambda z: 1 / (1 + np.exp(-z)), 2 * math.log(9)),
    "slow end (Gompertz)": (lambda z: np.exp(-np.exp(-z)), math.log(math.log(0.1) / math.log(0.9))),
    "slow begin (Gompertz)": (lambda z: 1 - np.exp(-np.exp(z)), math.log(math.log(0.1) / math.log(0.9))),
}


def _smooth(data: _Data) -> Iterator[Fit]:
    """Fit shapes in log x: straight, curved, a power of x, and sigmoids, the logistic one on a trend as well."""
    if len(data.positions) < 4 or not data.span > 0:
        return
    t = (data.positions - data.positions[0]) / data.span
    powers = np.stack([t, t**2, t**3], -1)[None]
    for degree, name in enumerate(("linear", "quadratic", "cubic"), start=1):
        yield data.fit(name, 1 + degree, powers[..., :degree])
    rates = np.concatenate([-np.geomspace(12, 0.5, 12), np.geomspace(0.5, 12, 12)])
    yield data.fit("power of x", 3, np.exp(rates[:, None] * (t - (rates > 0)[:, None]))[..., None])
    for name in _SIGMOIDS:
        yield _sigmoid(data, name, trend=False)
    if len(data.positions) >= FEWEST_POINTS:
        yield _sigmoid(data, "logistic", trend=True)


def _sigmoid(data: _Data, name: str, *, trend: bool) -> Fit:
    """Fit a sigmoid on a grid of middles and widths, then on finer grids around the best."""
    _, widths_in_rise = _SIGMOIDS[name]
    narrowest = SMOOTH_RISE / widths_in_rise
    start, end = data.positions[0], data.positions[-1]
    places = np.linspace(start - data.span / 4, end + data.span / 2, _PLACES)
    widths = np.geomspace(narrowest, max(data.span, 2 * narrowest), _WIDTHS)
    place, width = _best_sigmoid(data, name, trend, places, widths)
    step, ratio = float(places[1] - places[0]), float(widths[1] / widths[0])
    for _ in range(2):
        places = place + step * np.linspace(-1, 1, 9)
        widths = np.maximum(width * ratio ** np.linspace(-1, 1, 9), narrowest)
        place, width = _best_sigmoid(data, name, trend, places, widths)
        step, ratio = step / 4, ratio**0.25
    columns = _sigmoid_columns(data, name, trend, np.array([place]), np.array([width]))
    return data.fit(f"{name} on a trend" if trend else name, 5 if trend else 4, columns)


def _best_sigmoid(data: _Data, name: str, trend: bool, places: Floats, widths: Floats) -> tuple[float, float]:
    grid = np.stack(np.meshgrid(places, widths, indexing="ij"), -1).reshape(-1, 2)
    squares, _, _ = data.regressions(_sigmoid_columns(data, name, trend, grid[:, 0], grid[:, 1]))
    place, width = grid[int(squares.argmin())]
    return float(place), float(width)


def _sigmoid_columns(data: _Data, name: str, trend: bool, places: Floats, widths: Floats) -> Floats:
    curve, _ = _SIGMOIDS[name]
    z = np.clip((data.positions - places[:, None]) / widths[:, None], -30, 30)
    columns = [curve(z)]
    if trend:
        columns.append(np.broadcast_to((data.positions - data.positions[0]) / data.span, z.shape))
    return np.stack(columns, -1)


def _changes(data: _Data) -> Iterator[Fit]:
    """Fit a flat line, then a jump or a short ramp, then a flat line; with a drift before it or growth after it.

    The jump must be more than twice the drift and more than the growth, so that it is most of the whole gain. (A margin
    drifts down while a network becomes confident before it becomes right.)
    """
    t = data.positions
    for length, name, extra in ((0.0, "jump", 0), (SHARP_RISE, "ramp", 1), (SHARP_RISE / 2, "ramp", 1)):
        begins, ends = _places(data, length)
        if not len(begins):
            continue
        if length:
            up = np.clip((t - begins[:, None]) / (ends - begins)[:, None], 0, 1)
        else:
            up = (t > begins[:, None]).astype(np.float64)
        before = np.minimum(0.0, t - begins[:, None])
        after = np.maximum(0.0, t - ends[:, None])
        middles = (begins + ends) / 2
        for also, words, most in (
            (None, "", 1.0),
            (before, "drift, then ", 0.5),
            (after, "growth after a ", 1.0),
        ):
            columns = up[..., None] if also is None else np.stack([up, also], -1)
            regressed = data.regressions(columns)
            jump, slope = regressed[1][:, 0], regressed[1][:, -1]
            allowed = jump > 0
            if also is not None:
                allowed = allowed & (np.abs(slope) * np.ptp(also, axis=1) < most * jump)
            yield data.fit(
                f"{words}{name}", 3 + extra + (also is not None), columns, middles, allowed, regressed
            )


def _places(data: _Data, length: float) -> tuple[Floats, Floats]:
    """Return where a change of a given length may begin and end, with enough points on either side."""
    t = data.positions
    if length == 0:
        at = np.arange(BEFORE - 1, len(t) - AFTER)
        middles = (t[at] + t[at + 1]) / 2
        return middles, middles
    begins = np.linspace(t[BEFORE - 1], max(t[BEFORE - 1], t[-AFTER] - length), 81)
    keep = (begins + length <= t[-AFTER] + 1e-9) & (begins >= t[BEFORE - 1] - 1e-9)
    return begins[keep], begins[keep] + length
