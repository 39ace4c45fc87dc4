"""The verdict on a tuning with pairs: whether chosen answers gained, what became of both, and what was forgotten.

Each claim is a one-sided test at :data:`etude.evaluate.tuning.paired_tests.LEVEL`. Only the difference of the two
log-probabilities is trained, so both may fall; this is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from etude.evaluate.statistics import Estimate, proportion
from etude.evaluate.tuning.pair_scores import PairScores
from etude.evaluate.tuning.paired_tests import FEWEST_GROUPS, LEVEL, ratio, sign_test, sums_of_groups
from etude.evaluate.tuning.verdict import FORGOT, Rise, p_words, words_of_cost

TOWARDS = "moved towards the chosen answers"
AWAY = "moved towards the rejected answers"
STILL = "did not move towards the chosen answers"
CANNOT_TELL = "cannot tell"
BOTH_FELL = "both fell"
CHOSEN_FELL = "the chosen answers fell"
LEAST_GAIN = 1e-4
"""Nats; a smaller gain of the chosen answer is rounding."""
ERROR_RATES = (
    f"of tunings on pairs whose answers were tossed, at most {100 * LEVEL:g} % are said to move towards the chosen "
    f"ones, and {100 * LEVEL:g} % to lower either or to forget each text"
)


@dataclass(frozen=True)
class PairFigures:
    """The figures of one model on the held-out pairs, with 95 % intervals over questions.

    Attributes:
        won: share of pairs whose chosen answer is the more probable one.
        gained: share of pairs whose chosen answer gained on the rejected one since the base; None for the base.
        chosen, rejected: log-probability of a trained token of the answers, in nats.
    """

    name: str
    won: Estimate
    gained: Estimate | None
    chosen: Estimate
    rejected: Estimate


@dataclass(frozen=True)
class PairsVerdict:
    """What a tuning with pairs changed.

    Attributes:
        chosen, rejected: change of the log-probability of a trained token, paired.
        p_values: by claim, one-sided.
        claims: in a few words each.
        sentence: all of it in words.
    """

    chosen: Estimate
    rejected: Estimate
    p_values: dict[str, float]
    claims: list[str]
    sentence: str


def gains_of(base: PairScores, tuned: PairScores) -> list[int]:
    """Return for each pair whether its chosen answer gained on the rejected one (1), lost (-1), or neither (0)."""
    gains = np.diff(base.nats)[:, 0] - np.diff(tuned.nats)[:, 0]
    signs: list[int] = np.where(np.abs(gains) < LEAST_GAIN, 0, np.sign(gains)).astype(int).tolist()
    return signs


def pair_figures(
    name: str, scores: PairScores, groups: Sequence[str], base: PairScores | None = None
) -> PairFigures:
    """Return the figures of a model; with those of the ``base``, what gained since."""
    gained = None
    if base is not None:
        gained = proportion([(1 + gain) / 2 for gain in gains_of(base, scores)], groups)
    chosen, rejected = (
        ratio(nats.tolist(), tokens.tolist(), groups)
        for nats, tokens in zip(scores.nats.T, scores.tokens.T, strict=True)
    )
    return PairFigures(name, proportion(scores.won, groups), gained, chosen, rejected)


def pairs_verdict(
    groups: Sequence[str], base: PairScores, tuned: PairScores, rises: Sequence[Rise]
) -> PairsVerdict:
    """Return the verdict on ``tuned`` beside its ``base``, with the costs on reference texts."""
    gains = [round(value) for value in sums_of_groups(gains_of(base, tuned), groups)]
    p_values = {TOWARDS: sign_test(gains), AWAY: sign_test([-gain for gain in gains])}
    move = next((claim for claim, p_value in p_values.items() if p_value <= LEVEL), STILL)
    if len(gains) < FEWEST_GROUPS:
        move = CANNOT_TELL
    changes = (tuned.nats - base.nats).T
    chosen, rejected = (
        ratio(change.tolist(), tokens.tolist(), groups)
        for change, tokens in zip(changes, tuned.tokens.T, strict=True)
    )
    claims: list[str] = [move]
    if chosen.interval.high < 0:
        claims.append(BOTH_FELL if rejected.interval.high < 0 else CHOSEN_FELL)
    forgot = [rise for rise in rises if rise.is_forgetting]
    sentence = "; ".join(
        [*_words(move, claims, p_values, base, tuned, chosen, rejected), *words_of_cost(forgot)]
    )
    return PairsVerdict(chosen, rejected, p_values, [*claims, FORGOT] if forgot else claims, sentence)


def _words(
    move: str,
    claims: Sequence[str],
    p_values: dict[str, float],
    base: PairScores,
    tuned: PairScores,
    chosen: Estimate,
    rejected: Estimate,
) -> list[str]:
    gains, count = gains_of(base, tuned), len(base.nats)
    gained = gains.count(-1 if move == AWAY else 1)
    words = [
        f"{move}: they gained in {gained} of {count} pairs (p {p_words(p_values.get(move, p_values[TOWARDS]))})"
    ]
    if move == CANNOT_TELL:
        words = [
            f"cannot tell whether it {TOWARDS}: pairs of at least {FEWEST_GROUPS} different questions are needed"
        ]
    won = [sum(value == 1 for value in scores.won) for scores in (tuned, base)]
    words.append(
        f"the chosen answer is the more probable one in {won[0]} of {count} pairs, with the base in {won[1]}"
    )
    if BOTH_FELL in claims:
        words.append(
            f"{BOTH_FELL}: chosen answers by {-chosen.value:.3f} and rejected ones by {-rejected.value:.3f} nats per "
            "token"
        )
    elif CHOSEN_FELL in claims:
        words.append(f"{CHOSEN_FELL}, by {-chosen.value:.3f} nats per token")
    return words
