"""The loss law over sizes: L(N) = E + A / N^alpha, with + B / D^beta where the tokens vary, and how sure it is."""

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
"""Log loss beyond which a residual counts by its size and no longer by its square: an outlier does not bend the law."""
LEAST_SCATTER = 3e-3
"""Of log loss, where no size has two seeds to tell: equal runs with other seeds end some tenths of a per cent apart."""
DRAWS = 400
_ROUNDS = 50
_CELLS = 6
"""Pairs of parameters and tokens from which on the law counts tokens too."""
_SLOWEST, _FASTEST = 0.01, 3.0
"""Exponents between which a law is looked for."""


@dataclass(frozen=True)
class EndOfRun:
    """A run at its end: parameters (as a rule without the embedding), tokens seen, validation loss in nats."""

    parameters: float
    tokens: float
    loss: float

    def __post_init__(self) -> None:
        figures = (self.parameters, self.tokens, self.loss)
        if not all(math.isfinite(figure) and figure > 0 for figure in figures):
            raise InputError(
                f"a law needs positive parameters, tokens and losses, not {shown(figures)}: leave that run out"
            )


@dataclass(frozen=True)
class LossLaw:
    """Fitted to `runs`.

    parameters: logs of E, A, alpha (and B, beta), of sizes counted from the usual one; scatter: standard deviation of
    log loss from run to run, known with so many degrees of `freedom`; draws: the same fit to runs made up from the
    law, one a row; noise: of one more run in each of these.
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
        """A coefficient, counted from one parameter or token on, and its exponent."""
        exponent = float(np.exp(self.parameters[first + 1]))
        return float(np.exp(self.parameters[first] + exponent * _scale(self.runs)[first // 2])), exponent

    def exponent_interval(self) -> Interval:
        """Of alpha, 95 %."""
        low, high = np.exp(np.quantile(self.draws[:, 2], (0.025, 0.975)))
        return Interval(float(low), float(high))

    def predict(self, parameters: float, tokens: float | None = None) -> Estimate:
        """The loss of one new run, with the interval in which 95 % of such runs fall.

        Raises InputError where the law needs the tokens and they are not given.
        """
        if self.data is not None and tokens is None:
            raise InputError("this law counts tokens too: say how many the run sees")
        at = np.array([[math.log(parameters), math.log(tokens or 1.0)]])
        scale = _scale(self.runs)
        value = float(np.exp(_log_loss(self.parameters[None], at - scale)[0, 0]))
        log_losses = _log_loss(self.draws, at - scale)[:, 0] + self.noise
        low, high = np.exp(np.quantile(log_losses, (0.025, 0.975)))
        error = float(np.exp(log_losses).std())
        return Estimate(
            value, error, Interval(float(min(low, value)), float(max(high, value))), len(self.runs)
        )

    def words(self, parameters: float, tokens: float | None = None) -> str:
        """A prediction in a line, with how wide it is and from how much."""
        told = self.predict(parameters, tokens)
        sizes = len({run.parameters for run in self.runs})
        width = (told.interval.high - told.interval.low) / 2 / told.value
        few = "; so few points hardly hold the law" if self.freedom < 4 or sizes < 4 else ""
        return (
            f"{told.value:.3f} nats ({told.interval.low:.3f} to {told.interval.high:.3f}, ±{100 * width:.1f} %) "
            f"from {len(self.runs)} runs of {sizes} sizes{few}"
        )


def fit_law(runs: Sequence[EndOfRun], *, seed: int = 0, draws: int = DRAWS) -> LossLaw:
    """The law of Hoffmann et al. (2022), robust (Huber's loss on log loss).

    The tokens enter where they vary apart from the parameters, in six pairs or more. The interval comes from refitting
    made-up runs: the fitted law plus the scatter between runs, of which so few tell only roughly how large it is (it is
    drawn too).
    Raises InputError for fewer than three sizes, or no run to spare for the scatter.
    """
    points = np.log(np.array([[run.parameters, run.tokens] for run in runs], np.float64).reshape(-1, 2))
    losses = np.log(np.array([run.loss for run in runs], np.float64))
    sizes = len({run.parameters for run in runs})
    count = 5 if _tokens_vary(points) else 3
    if sizes < 3:
        raise InputError(
            f"a loss law needs at least three sizes, and these runs are of {sizes}: train more sizes"
        )
    cells = [np.flatnonzero((points == one).all(1)) for one in np.unique(points, axis=0)]
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
    # An unknown variance with that many degrees of freedom.
    scales = scatter * np.sqrt(freedom / generator.chisquare(freedom, draws))
    made = _log_loss(best[None], points) + scales[:, None] * generator.normal(size=(draws, len(runs)))
    fitted = _fit(points, made, np.stack([best, _starts(points, losses, count)[0]]))
    return LossLaw(tuple(runs), best, scatter, fitted, scales * generator.normal(size=draws), freedom)


def _scale(runs: Sequence[EndOfRun]) -> Floats:
    """Logs of the usual parameters and tokens: the fit counts from there, which keeps A and alpha apart."""
    return np.log(
        np.array([np.median([r.parameters for r in runs]), np.median([r.tokens for r in runs])], np.float64)
    )


def _tokens_vary(points: Floats) -> bool:
    """Whether the tokens vary, not just in step with the parameters, and in enough ways to tell what they do.

    Otherwise the law is one of sizes that are trained by one recipe, whatever tokens it gives them.
    """
    if len(np.unique(points, axis=0)) < _CELLS or np.ptp(points[:, 1]) < 0.05:
        return False
    if np.ptp(points[:, 0]) == 0:
        return True
    return abs(float(np.asarray(np.corrcoef(points.T))[0, 1])) < 0.98


def _scatter(residuals: Floats, losses: Floats, cells: Sequence[NDArray[np.int64]], spare: int) -> float:
    """Between seeds of one size where there are several, and around the law; the larger of both counts."""
    around = float((residuals**2).sum()) / spare if spare > 0 else 0.0
    within = sum(len(cell) - 1 for cell in cells)
    if within == 0:
        return max(math.sqrt(around), LEAST_SCATTER)
    squares = sum(float(((losses[cell] - losses[cell].mean()) ** 2).sum()) for cell in cells)
    return max(math.sqrt(around), math.sqrt(squares / within), 1e-6)


def _log_loss(parameters: Floats, points: Floats) -> Floats:
    """(G, p) logs of (E, A, alpha[, B, beta]) at (n, 2) logs of (N, D): (G, n)."""
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
    """For each row of `losses` (G, n) the best of all starts: Levenberg-Marquardt with Huber's weights, all at once."""
    groups, many = len(losses), len(starts)
    parameters = np.tile(starts, (groups, 1))
    targets = np.repeat(losses, many, 0)
    damping = np.full(len(parameters), 1e-2)
    cost = _cost(parameters, points, targets)
    for _ in range(_ROUNDS):
        if damping.min() > 1e6:
            break  # no step makes any of them better
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
