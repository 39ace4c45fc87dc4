"""How an ability emerged, in one of a few verdicts over all seeds, with the numbers behind it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

import numpy as np

from etude.emergence.change_point import FEWEST_POINTS, SHARP_RISE, compare, hidden_gain, rise
from etude.emergence.curves import Curve, errors_of, log_positions, values_of
from etude.evaluate.statistics import Estimate, Interval, Z

FEWEST_SEEDS = 3
MOST_OF_THEM = 2 / 3
BETTER = 2.0
"""Required BIC advantage of one kind of curve; less is "not worth more than a bare mention" (Kass & Raftery 1995)."""
SHARPER = 0.5
"""A thresholded curve is sharper if its rise takes less than this share of the continuous one's, in log x."""
HIDDEN = 0.5
"""A threshold hides growth if the continuous metric makes this share of its gain before the thresholded one starts."""
GAP = 0.5
"""Seeds fall into two groups if a gap between their last margins exceeds this share of the highest margin."""
GAP_ERRORS = 4.0
"""The gap must also exceed this many standard errors of the difference."""

RULES = (
    f"'Emerged' needs at least {FEWEST_SEEDS} seeds. In two thirds of them, a change point must describe the "
    f"continuous metric better than any smooth curve and a flat line, by a BIC of {BETTER:.0f} or more, and the last "
    "margin must be above 0.",
    f"'Grew smoothly' needs the opposite: in two thirds of the seeds, a smooth rise beats every change point and a "
    f"flat line by a BIC of {BETTER:.0f} or more, and the last margin is above 0 and above the first, each beyond its "
    "95 % error. 'How it developed is undecided' if neither holds.",
    "A change point: flat, or drifting a little, then more than half of the whole gain within a factor of 2 in x. A "
    "smooth curve: straight, curved, a power of x, or a sigmoid whose rise from 10 % to 90 % takes a factor of 4 or "
    "more. A curve whose gain between the points goes from 10 % to 90 % within a factor of 2 is not a smooth rise.",
    "'The sharpness is the metric's' if, in two thirds of the seeds, the continuous metric grew smoothly while the "
    "thresholded one (the share of right answers) jumps by the rule of change points, or rises in less than half as "
    "many doublings, or shows 10 % of its gain only after the continuous one has made half of its own.",
    "'Mixed over seeds' if some seeds have the ability and others do not: a gap between the seeds' last margins "
    f"exceeds half of the highest margin and {GAP_ERRORS:.0f} standard errors, every seed above the gap has a margin "
    "above 0, and at least one seed below it lacks the ability.",
    "An ability is there if the interval of the last margin lies above 0, or that of the last accuracy above chance "
    "(if neither gains during training, the interval of the median score counts); 'not there yet' if that holds in "
    "less than two thirds of the seeds. Either metric suffices: an overconfident network may choose right more often "
    "than chance and still lose nats. Then, with the margin above 0 in less than two thirds of the seeds, the verdict "
    "is 'above chance, but only in right answers'.",
    "'There from the first checkpoint' if the ability is there, neither emerged nor grew smoothly, and neither metric "
    "gains in two thirds of the seeds.",
)


class Word(StrEnum):
    """All possible verdicts."""

    EMERGED = "emerged"
    METRIC = "grew smoothly; the sharpness is the metric's"
    SMOOTH = "grew smoothly"
    UNDECIDED = "there; how it developed is undecided"
    ONLY_ANSWERS = "above chance, but only in right answers"
    FROM_THE_START = "there from the first checkpoint"
    NOT_YET = "not there yet"
    MIXED = "mixed over seeds (bimodal)"
    ONE_SEED = "one seed proves nothing"
    TWO_SEEDS = "two seeds prove nothing"
    FEW_POINTS = "too few checkpoints to tell"


@dataclass(frozen=True)
class SeedFinding:
    """The findings for one seed.

    advantage: BIC by which a change point beats every smooth curve and a flat line on the continuous metric (-inf if
    none fits); smoothness: BIC by which a smooth rise beats every change point and a flat line (-inf if the smooth
    curve does not rise, or rises within less than a factor of two); grown: the last margin is above the first, beyond
    error; changed_at: the x of the change, if there is one; shape: the shape that describes the curve best; rise,
    thresholded_rise: factor in x from 10 % to 90 % of the gain (inf without a gain); hidden: share of the gain that
    the continuous metric had made when the thresholded one had made 10 % of its own; sharp_threshold: the thresholded
    curve jumps, rises in less than half the doublings, or hides half of the gain; there: above chance at the end;
    in_margin: above chance by the continuous metric; flat: neither metric gains.
    """

    seed: int
    advantage: float
    smoothness: float
    grown: bool
    changed_at: float | None
    shape: str
    rise: float
    thresholded_rise: float
    hidden: float
    sharp_threshold: bool
    there: bool
    in_margin: bool
    flat: bool
    margin: Estimate
    accuracy: Estimate

    @property
    def changed(self) -> bool:
        return self.advantage >= BETTER

    @property
    def smooth(self) -> bool:
        return self.smoothness >= BETTER and self.grown and self.in_margin


@dataclass(frozen=True)
class Verdict:
    """word: the verdict; margin, accuracy: of the last checkpoint, with an interval over seeds and items."""

    word: Word
    seeds: tuple[SeedFinding, ...]
    margin: Estimate
    accuracy: Estimate
    num_points: int

    @property
    def num_changed(self) -> int:
        return sum(finding.changed for finding in self.seeds)

    @property
    def num_smooth(self) -> int:
        return sum(finding.smooth for finding in self.seeds)

    @property
    def numbers(self) -> str:
        """The figures behind the verdict, in one line."""
        many = len(self.seeds)
        parts = [
            f"{many} seed{'s' if many > 1 else ''}, {self.num_points} checkpoints",
            f"a change point wins in {self.num_changed} of {many}",
            f"BIC for it: {', '.join(_signed(finding.advantage) for finding in self.seeds)}",
            f"a smooth rise wins in {self.num_smooth} of {many}",
        ]
        changes = [
            finding.changed_at for finding in self.seeds if finding.changed and finding.changed_at is not None
        ]
        if changes:
            parts.append(f"change at step {', '.join(f'{at:,.0f}' for at in changes)}")
        rises = [finding.rise for finding in self.seeds if math.isfinite(finding.rise)]
        if rises and self.word not in (Word.NOT_YET, Word.FEW_POINTS, Word.ONLY_ANSWERS):
            parts.append(f"rise over a factor of {float(np.median(rises)):.3g}")
        low, high = self.margin.interval.low, self.margin.interval.high
        sure = f"{low:+.3f} to {high:+.3f}" if math.isfinite(high - low) else "no interval"
        parts.append(f"last margin {self.margin.value:+.3f} nats ({sure})")
        return "; ".join(parts)


def verdict(curves: Sequence[Curve]) -> Verdict:
    """Judge one ability over the seeds of otherwise equal runs. Raises ValueError for no curves."""
    if not curves:
        raise ValueError("a verdict needs a curve")
    seeds = tuple(find(curve) for curve in curves)
    margin = over_seeds([curve.margin[-1] for curve in curves])
    accuracy = _share(over_seeds([curve.accuracy[-1] for curve in curves]))
    fewest = min(len(curve.x) for curve in curves)
    return Verdict(_word(seeds, fewest), seeds, margin, accuracy, fewest)


def _word(seeds: Sequence[SeedFinding], fewest: int) -> Word:
    enough = MOST_OF_THEM * len(seeds) - 1e-9
    if len(seeds) < FEWEST_SEEDS:
        return Word.ONE_SEED if len(seeds) == 1 else Word.TWO_SEEDS
    if _of_two_kinds(seeds):
        return Word.MIXED
    if sum(finding.there for finding in seeds) < enough:
        return Word.NOT_YET
    if fewest < FEWEST_POINTS:
        return Word.FEW_POINTS
    if sum(finding.in_margin for finding in seeds) < enough:
        return Word.ONLY_ANSWERS
    if sum(finding.changed and finding.in_margin for finding in seeds) >= enough:
        return Word.EMERGED
    if sum(finding.smooth for finding in seeds) >= enough:
        sharp = sum(finding.smooth and finding.sharp_threshold for finding in seeds)
        return Word.METRIC if sharp >= enough else Word.SMOOTH
    return Word.FROM_THE_START if sum(finding.flat for finding in seeds) >= enough else Word.UNDECIDED


def find(curve: Curve) -> SeedFinding:
    """Analyse a single curve."""
    positions = log_positions(curve.x)
    continuous = compare(positions, values_of(curve.margin), errors_of(curve.margin))
    thresholded = compare(positions, values_of(curve.thresholded), errors_of(curve.thresholded))
    slow, fast = (rise(positions, comparison.best.values) for comparison in (continuous, thresholded))
    hidden = hidden_gain(positions, continuous.best.values, thresholded.best.values)
    flat = slow == fast == math.inf
    change = continuous.change
    in_margin = above_chance(curve.margin, 0.0, flat)
    smooth_rise = rise(positions, continuous.smooth.values)
    return SeedFinding(
        curve.seed,
        continuous.advantage,
        continuous.smoothness if SHARP_RISE <= smooth_rise < math.inf else -math.inf,
        _is_above(curve.margin[-1], curve.margin[0]),
        math.exp(change.place) if change is not None and change.place is not None else None,
        continuous.best.shape,
        math.exp(min(slow, 700)) if math.isfinite(slow) else math.inf,
        math.exp(min(fast, 700)) if math.isfinite(fast) else math.inf,
        hidden,
        thresholded.advantage >= BETTER or fast < SHARPER * slow < math.inf or hidden > HIDDEN,
        in_margin or above_chance(curve.accuracy, curve.chance, flat),
        in_margin,
        flat,
        curve.margin[-1],
        curve.accuracy[-1],
    )


def above_chance(scores: Sequence[Estimate], chance: float, flat: bool) -> bool:
    """Return whether the last score is above chance, interval included; for scores without a gain, their median."""
    middle = sorted(scores, key=lambda score: score.value)[(len(scores) - 1) // 2]
    return (middle if flat else scores[-1]).interval.low > chance


def _is_above(last: Estimate, first: Estimate) -> bool:
    """Return whether the difference exceeds its 95 % error, which is conservative for the same items."""
    return last.value - first.value > Z * math.hypot(last.standard_error, first.standard_error)


def over_seeds(estimates: Sequence[Estimate]) -> Estimate:
    """Average over seeds. All answer the same items, so the items' share of the error does not shrink with seeds.

    The interval uses Student's t for the spread of few seeds, and each seed's own interval for that of the items.
    """
    if len(estimates) == 1:
        return estimates[0]
    values = values_of(tuple(estimates))
    value, count = float(values.mean()), len(values)
    between = float(values.std(ddof=1)) / math.sqrt(count)
    spread = _student(count - 1) * between
    below = float(np.mean([estimate.value - estimate.interval.low for estimate in estimates]))
    above = float(np.mean([estimate.interval.high - estimate.value for estimate in estimates]))
    items = float(np.mean([estimate.standard_error for estimate in estimates]))
    interval = Interval(value - math.hypot(spread, below), value + math.hypot(spread, above))
    return Estimate(value, math.hypot(between, items), interval, count)


_T = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281)
"""Student's t, two-sided 95 %, for 1 to 10 degrees of freedom; beyond, the normal quantile is corrected."""


def _student(freedom: int) -> float:
    if freedom <= len(_T):
        return _T[freedom - 1]
    return Z + (Z**3 + Z) / (4 * freedom) + (5 * Z**5 + 16 * Z**3 + 3 * Z) / (96 * freedom**2)


def _share(estimate: Estimate) -> Estimate:
    """Return the estimate with its interval clipped to [0, 1]."""
    interval = Interval(max(0.0, estimate.interval.low), min(1.0, estimate.interval.high))
    return Estimate(estimate.value, estimate.standard_error, interval, estimate.count)


def _of_two_kinds(seeds: Sequence[SeedFinding]) -> bool:
    """Return whether some seeds have the ability, in nats as well, and some of those far below lack it."""
    ordered = sorted(seeds, key=lambda finding: finding.margin.value)
    highest = ordered[-1].margin.value
    for at, (lower, upper) in enumerate(pairwise(ordered), start=1):
        gap = upper.margin.value - lower.margin.value
        error = math.hypot(lower.margin.standard_error, upper.margin.standard_error)
        upper_has = all(finding.there and finding.margin.interval.low > 0 for finding in ordered[at:])
        lower_lacks = not all(finding.there for finding in ordered[:at])
        if upper_has and lower_lacks and gap > GAP * highest and gap > GAP_ERRORS * error:
            return True
    return False


def _signed(value: float) -> str:
    return f"{value:+.1f}" if math.isfinite(value) else "no rise"
