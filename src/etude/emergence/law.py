"""The loss law over sizes, L(N) = E + A / N^alpha (+ B / D^beta when the tokens vary), with its uncertainty."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from etude.errors import InputError
from etude.evaluate.statistics import Estimate, Interval
from etude.untrusted import shown

Floats = NDArray[np.float64]

HUBER = 1e-2
"""Residual of log loss beyond which Huber's loss is linear instead of quadratic, so that outliers count less."""
LEAST_SCATTER = 3e-3
"""Smallest scatter of log loss, used if no size has two seeds: seeds differ by some tenths of a per cent at the end."""
DRAWS = 400
_ROUNDS = 50
_CELLS = 6
"""Number of (parameters, tokens) pairs from which on the law includes the tokens."""
_SLOWEST, _FASTEST = 0.01, 3.0
"""Range of exponents that is searched."""


@dataclass(frozen=True)
class EndOfRun:
    """The end of a run: parameters (usually without the embedding), tokens seen, validation loss in nats."""

    parameters: float
    tokens: float
    loss: float

    def __post_init__(self) -> None:
        figures = (self.parameters, self.tokens, self.loss)
        if not all(math.isfinite(figure) and figure > 0 for figure in figures):
            raise InputError(
                f"a law needs positive parameters, tokens and losses, not {shown(figures)}: omit that run"
            )


@dataclass(frozen=True)
class LossLaw:
    """A law fitted to `runs`.

    parameters: logs of E, A, alpha (and B, beta), with sizes relative to the median size; scatter: standard deviation
    of log loss between runs, estimated with `freedom` degrees of freedom; draws: one row for the same fit to each set
    of runs simulated from the law; noise: of one more run in each of these sets.
    """

    runs: tuple[EndOfRun, ...]
    parameters: Floats
    scatter: float
    draws: Floats
    noise: Floats
    freedom: int

    @property
    def floor(self) -> float:
        return float(np.exp(self.parameters[0]))

    @property
    def size(self) -> tuple[float, float]:
        """A and alpha."""
        return self._term(1)

    @property
    def data(self) -> tuple[float, float] | None:
        """B and beta."""
        return self._term(3) if len(self.parameters) == 5 else None

    def _term(self, first: int) -> tuple[float, float]:
        """Return a coefficient, relative to one parameter or token, and its exponent."""
        exponent = float(np.exp(self.parameters[first + 1]))
        return float(np.exp(self.parameters[first] + exponent * _scale(self.runs)[first // 2])), exponent

    def exponent_interval(self) -> Interval:
        """Return the 95 % interval of alpha."""
        low, high = np.exp(np.quantile(self.draws[:, 2], (0.025, 0.975)))
        return Interval(float(low), float(high))

    def predict(self, parameters: float, tokens: float | None = None) -> Estimate:
        """Predict the loss of one new run, with the interval that holds 95 % of such runs.

        Raises InputError if the law needs the number of tokens and it is not given.
        """
        if self.data is not None and tokens is None:
            raise InputError("this law includes tokens: give the number of tokens of the run")
        at = np.array([[math.log(parameters), math.log(tokens or 1.0)]])
        scale = _scale(self.runs)
        value = float(np.exp(_log_loss(self.parameters[None], at - scale)[0, 0]))
        log_losses = _log_loss(self.draws, at - scale)[:, 0] + self.noise
        low, high = np.exp(np.quantile(log_losses, (0.025, 0.975)))
        error = float(np.exp(log_losses).std())
        return Estimate(
            value, error, Interval(float(min(low, value)), float(max(high, value))), len(self.runs)
        )

    def describe(self, parameters: float, tokens: float | None = None) -> str:
        """Return a prediction in one line, with its uncertainty and the number of runs behind it."""
        prediction = self.predict(parameters, tokens)
        sizes = len({run.parameters for run in self.runs})
        width = (prediction.interval.high - prediction.interval.low) / 2 / prediction.value
        few = "; the law is uncertain with so few points" if self.freedom < 4 or sizes < 4 else ""
        return (
            f"{prediction.value:.3f} nats ({prediction.interval.low:.3f} to {prediction.interval.high:.3f}, "
            f"±{100 * width:.1f} %) from {len(self.runs)} runs of {sizes} sizes{few}"
        )


def fit_law(runs: Sequence[EndOfRun], *, seed: int = 0, draws: int = DRAWS) -> LossLaw:
    """Fit the law of Hoffmann et al. (2022) robustly (Huber's loss on log loss).

    Tokens are included when they vary independently of the parameters, in six pairs or more. The interval comes from
    refitting simulated runs: the fitted law plus the scatter between runs. Few runs determine this scatter only
    roughly, so it is drawn as well.
    Raises InputError for fewer than three sizes, or too few runs to estimate the scatter.
    """
    points = np.log(np.array([[run.parameters, run.tokens] for run in runs], np.float64).reshape(-1, 2))
    losses = np.log(np.array([run.loss for run in runs], np.float64))
    sizes = len({run.parameters for run in runs})
    count = 5 if _tokens_vary(points) else 3
    if sizes < 3:
        raise InputError(
            f"a loss law needs at least three sizes, and these runs are of {sizes}: train more sizes"
        )
    cells = [np.flatnonzero((points == cell).all(1)) for cell in np.unique(points, axis=0)]
    freedom = max(len(runs) - count, len(runs) - len(cells))
    if freedom < 1 or len(cells) < count:
        raise InputError(
            f"{len(runs)} runs cannot fix the {count} numbers of a loss law: train another size or another seed"
        )
    points = points - _scale(runs)
    best = _fit(points, losses[None], _starts(points, losses, count))[0]
    residuals = losses - _log_loss(best[None], points)[0]
    scatter = _scatter(residuals, losses, cells, len(runs) - count)
    generator = np.random.default_rng(seed)
    # The scatter is a variance estimated with `freedom` degrees of freedom: draw it from its sampling distribution.
    scales = scatter * np.sqrt(freedom / generator.chisquare(freedom, draws))
    simulated = _log_loss(best[None], points) + scales[:, None] * generator.normal(size=(draws, len(runs)))
    fitted = _fit(points, simulated, np.stack([best, _starts(points, losses, count)[0]]))
    return LossLaw(tuple(runs), best, scatter, fitted, scales * generator.normal(size=draws), freedom)


def _scale(runs: Sequence[EndOfRun]) -> Floats:
    """Return logs of the median parameters and tokens: fitting relative to these decorrelates A and alpha."""
    return np.log(
        np.array([np.median([r.parameters for r in runs]), np.median([r.tokens for r in runs])], np.float64)
    )


def _tokens_vary(points: Floats) -> bool:
    """Return whether the tokens vary, not only in step with the parameters, and in enough ways to show their effect.

    Otherwise the law describes sizes trained by one recipe, whatever number of tokens it gives each.
    """
    if len(np.unique(points, axis=0)) < _CELLS or np.ptp(points[:, 1]) < 0.05:
        return False
    if np.ptp(points[:, 0]) == 0:
        return True
    return abs(float(np.asarray(np.corrcoef(points.T))[0, 1])) < 0.98


def _scatter(residuals: Floats, losses: Floats, cells: Sequence[NDArray[np.int64]], spare: int) -> float:
    """Return the larger of the scatter between seeds of one size, if there are several, and around the law."""
    around = float((residuals**2).sum()) / spare if spare > 0 else 0.0
    within = sum(len(cell) - 1 for cell in cells)
    if within == 0:
        return max(math.sqrt(around), LEAST_SCATTER)
    squares = sum(float(((losses[cell] - losses[cell].mean()) ** 2).sum()) for cell in cells)
    return max(math.sqrt(around), math.sqrt(squares / within), 1e-6)


def _log_loss(parameters: Floats, points: Floats) -> Floats:
    """Return (G, n) log losses of (G, p) logs of (E, A, alpha[, B, beta]) at (n, 2) logs of (N, D)."""
    return np.asarray(np.log(np.sum(_terms(parameters, points), axis=0)))


def _terms(parameters: Floats, points: Floats) -> list[Floats]:
    p = np.clip(parameters, -30, 30)
    terms = [np.exp(p[:, 0, None]) * np.ones(len(points))]
    for first, column in ((1, 0), (3, 1))[: (p.shape[1] - 1) // 2]:
        slope = np.exp(p[:, first + 1, None])
        terms.append(np.exp(np.clip(p[:, first, None] - slope * points[:, column], -60, 60)))
    return terms


def _starts(points: Floats, losses: Floats, count: int) -> Floats:
    lowest = math.exp(float(losses.min()))
    starts = []
    for share in (0.1, 0.5, 0.85):
        for exponent in (0.1, 0.35, 1.0):
            rest = math.log(max(math.exp(float(np.median(losses))) - share * lowest, 1e-3))
            start = [math.log(share * lowest), rest, math.log(exponent)]
            if count == 5:
                start = [start[0], rest - math.log(2), start[2], rest - math.log(2), start[2]]
            starts.append(start)
    return np.array(starts)


def _fit(points: Floats, losses: Floats, starts: Floats) -> Floats:
    """Fit each row of `losses` (G, n) from all starts at once by Levenberg-Marquardt with Huber's weights."""
    groups, many = len(losses), len(starts)
    parameters = np.tile(starts, (groups, 1))
    targets = np.repeat(losses, many, 0)
    damping = np.full(len(parameters), 1e-2)
    cost = _cost(parameters, points, targets)
    for _ in range(_ROUNDS):
        if damping.min() > 1e6:
            break  # no step improves any of the fits
        step = _step(parameters, points, targets, damping)
        tried = _within(parameters + np.clip(step, -1, 1))
        new = _cost(tried, points, targets)
        better = new < cost
        parameters = np.where(better[:, None], tried, parameters)
        cost = np.where(better, new, cost)
        damping = np.clip(np.where(better, damping / 3, damping * 4), 1e-9, 1e9)
    best = cost.reshape(groups, many).argmin(1)
    return np.asarray(parameters.reshape(groups, many, -1)[np.arange(groups), best])


def _within(parameters: Floats) -> Floats:
    bounded = np.clip(parameters, -12, 30)
    for column in range(2, parameters.shape[1], 2):
        bounded[:, column] = np.clip(bounded[:, column], math.log(_SLOWEST), math.log(_FASTEST))
    return bounded


def _cost(parameters: Floats, points: Floats, targets: Floats) -> Floats:
    size = np.abs(_log_loss(parameters, points) - targets)
    return np.asarray(np.where(size < HUBER, size**2 / 2, HUBER * (size - HUBER / 2)).sum(1))


def _step(parameters: Floats, points: Floats, targets: Floats, damping: Floats) -> Floats:
    terms = _terms(parameters, points)
    total = np.sum(terms, axis=0)
    residual = np.log(total) - targets
    slopes = [terms[0] / total]
    for number, term in enumerate(terms[1:]):
        exponent = np.exp(parameters[:, 2 + 2 * number, None])
        slopes += [term / total, -exponent * points[:, number] * term / total]
    jacobian = np.stack(slopes, -1)
    weights = np.minimum(1.0, HUBER / np.maximum(np.abs(residual), 1e-300))
    square = np.einsum("gn,gnp,gnq->gpq", weights, jacobian, jacobian)
    moment = np.einsum("gn,gnp,gn->gp", weights, jacobian, residual)
    diagonal = np.einsum("gpp->gp", square)
    eye = np.eye(parameters.shape[1])
    square = square + eye * (damping[:, None] * diagonal + 1e-9)[:, None, :]
    return np.asarray(-np.linalg.solve(square, moment[..., None])[..., 0])
