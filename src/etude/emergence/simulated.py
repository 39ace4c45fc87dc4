"""Simulated studies with a known truth, which measure how often a verdict is right."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from etude.emergence.curves import Curve, Floats
from etude.emergence.verdict import Word
from etude.evaluate.statistics import mean, proportion

ITEMS = 256


class Truth(StrEnum):
    """The kinds of development that are simulated."""

    SMOOTH = "smooth"
    SHARP = "sharp"
    THRESHOLD = "smooth, through a threshold (p^L)"
    BIMODAL = "bimodal over seeds"
    NOISE = "noise"


RIGHT: dict[Truth, Word] = {
    Truth.SMOOTH: Word.SMOOTH,
    Truth.SHARP: Word.EMERGED,
    Truth.THRESHOLD: Word.METRIC,
    Truth.BIMODAL: Word.MIXED,
    Truth.NOISE: Word.NOT_YET,
}


@dataclass(frozen=True)
class Growth:
    """How the ability grows in one seed: a number from 0 to 1 for each position in log x.

    middle: where half is reached; rise: log x from 10 % to 90 %; height: at the end, in nats of the right choice;
    shape: `ramp` (straight up), `logistic`, `slowing` (fast at first) or `twice` (in two waves).
    """

    middle: float
    rise: float
    height: float
    shape: str

    def at(self, positions: Floats) -> Floats:
        z = (positions - self.middle) / self.rise
        if self.shape == "ramp":
            return np.clip(0.5 + 0.8 * z, 0, 1)
        if self.shape == "slowing":
            return np.asarray(np.exp(-np.exp(np.clip(math.log(math.log(2)) - 3.084 * z, -50, 50))))
        if self.shape == "twice":
            return (_sigmoid(8.8 * (z + 0.35)) + _sigmoid(8.8 * (z - 0.35))) / 2
        return _sigmoid(4.394 * z)


def _sigmoid(z: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(z, -50, 50))))


def study(
    truth: Truth,
    generator: np.random.Generator,
    *,
    num_seeds: int = 3,
    num_items: int = ITEMS,
    rise_factor: float | None = None,
) -> list[Curve]:
    """Simulate the curves of one study: 12 to 20 checkpoints on a logarithmic grid that begins at step 0.

    rise_factor: in x, from 10 % to 90 % of the log-odds; by default drawn from 1 to 1.8 for sharp rises, and from 8 to
    100 for others.
    """
    num_points = int(generator.integers(12, 21))
    steps = np.unique(np.geomspace(1, 2.0 ** generator.uniform(10, 14), num_points - 1).round())
    steps = np.concatenate([[0.0], steps])
    positions = np.log(np.maximum(steps, 0.5))
    base = _growth(truth, generator, positions, rise_factor)
    can = np.ones(num_seeds, np.bool_)
    if truth is Truth.BIMODAL:
        while can.all() or not can.any():
            can = generator.random(num_seeds) < 0.5
    length = int(generator.integers(5, 16)) if truth is Truth.THRESHOLD else 0
    items = _Items.of(generator, num_items, length)
    curves = []
    for seed in range(num_seeds):
        height = base.height * generator.uniform(0.85, 1.15) if can[seed] else 0.0
        growth = Growth(base.middle + generator.normal(0, 0.25), base.rise, height, base.shape)
        curves.append(items.curve(seed, steps, positions, growth, generator))
    return curves


def _growth(
    truth: Truth, generator: np.random.Generator, positions: Floats, rise_factor: float | None
) -> Growth:
    span = positions[-1] - positions[0]
    sharp = truth is Truth.SHARP or (truth is Truth.BIMODAL and generator.random() < 0.5)
    if rise_factor is None:
        low, high = (1.0, 1.8) if sharp else (8.0, 100.0)
        rise_factor = float(np.exp(generator.uniform(np.log(low), np.log(high))))
    shape = "ramp" if sharp else str(generator.choice(["logistic", "slowing", "twice"]))
    height = 0.0 if truth is Truth.NOISE else float(generator.uniform(1.0, 4.0))
    latest = {Truth.BIMODAL: 0.6, Truth.THRESHOLD: 0.6, Truth.SHARP: 0.8}.get(truth, 0.85)
    place = float(generator.uniform(0.35, latest))
    return Growth(positions[0] + place * span, max(math.log(rise_factor), 1e-3), height, shape)


@dataclass(frozen=True)
class _Items:
    """Items differ in how much of the ability they need, and in what a network prefers about them regardless of it.

    These differences persist over checkpoints and seeds; the rest of the scatter is new at each.
    """

    needs: Floats
    preferences: Floats
    wobble: float
    length: int

    @classmethod
    def of(cls, generator: np.random.Generator, count: int, length: int) -> _Items:
        """Draw `count` items. length: tokens of an open answer, 0 for none."""
        needs, preferences = np.exp(generator.normal(0, 0.3, count)), generator.normal(0, 0.7, count)
        return cls(needs, preferences, float(generator.uniform(0.03, 0.12)), length)

    def curve(
        self,
        seed: int,
        steps: Floats,
        positions: Floats,
        growth: Growth,
        generator: np.random.Generator,
    ) -> Curve:
        count, grown = len(self.needs), growth.at(positions)
        settled = 1 / (1 + np.exp(-2 * (positions - positions[0] - 1.5)))  # no preferences at first
        wobble = (
            generator.normal(0, self.wobble, len(steps)) * settled
        )  # of the whole network, new at each checkpoint
        own = generator.normal(0, 0.4, count)  # this seed's preferences
        typed = generator.random((count, self.length))
        margins, accuracies, exacts, nulls = [], [], [], []
        for at in range(len(steps)):
            new = generator.normal(0, 0.4, count) + wobble[at]
            logits = growth.height * grown[at] * self.needs + settled[at] * (self.preferences + own + new)
            margins.append(mean((np.log(2) - np.logaddexp(0, -logits)).tolist()))
            accuracies.append(proportion((logits > 0).astype(float).tolist()))
            if not self.length:
                continue
            again = generator.random(typed.shape) < 0.3
            typed[again] = generator.random(int(again.sum()))
            right = typed < 0.1 + 0.88 * grown[at]
            exacts.append(proportion(right.all(1).astype(float).tolist()))
            nulls.append(float(right.mean() ** self.length))
        return Curve(
            seed,
            tuple(steps.tolist()),
            tuple(margins),
            tuple(accuracies),
            0.5,
            tuple(exacts) if self.length else None,
            tuple(nulls) if self.length else None,
        )


def error_rates(
    judge: Callable[[Sequence[Curve]], Word], truth: Truth, num_studies: int, seed: int, **made: float
) -> dict[Word, int]:
    """Count how often `judge` gives each verdict among `num_studies` studies of one truth."""
    counts: dict[Word, int] = {}
    for number in range(num_studies):
        generator = np.random.default_rng([seed, list(Truth).index(truth), number])
        word = judge(study(truth, generator, **made))  # type: ignore[arg-type]
        counts[word] = counts.get(word, 0) + 1
    return counts
