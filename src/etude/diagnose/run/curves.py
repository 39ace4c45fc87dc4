"""Rules about the curves of a run: losses, learning rate, spikes."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from etude.config import get_value
from etude.diagnose.run.advice import RATES_APART
from etude.diagnose.run.course import (
    BLOCKS,
    EVALS_AFTER,
    FEWEST_STEPS,
    LEAST_FALL,
    OVERFIT_NOTICE,
    OVERFIT_PROBLEM,
    held_out_rise,
)
from etude.diagnose.run.evidence import Evidence
from etude.diagnose.run.verdict import Rule, Verdict
from etude.plan.base_values import dial_rates
from etude.train.rules import rule_named
from etude.train.spikes import LossWatch

Float64 = npt.NDArray[np.float64]

NOT_LEARNING = Rule(
    "not learning",
    f"After {FEWEST_STEPS} steps and the warm-up, the held-out loss must be at least {LEAST_FALL:.0%} below that of "
    "the untrained network; and below that of a base model, by any amount.",
)

SPIKE_DEVIATIONS = 7
"""As in the spike score of OLMo 2 (Team OLMo 2024): standard deviations from the running mean."""
SPIKE_WINDOW, SPIKE_FEWEST = 100, 20
"""Most and fewest previous steps for mean and deviation. OLMo 2 takes 1000, for far longer runs: in a short run they
would include the initial descent, whose deviation would hide every spike."""
MANY_SPIKES = 0.01
"""Share of the steps."""
BLOCK_STEPS = 5
"""Fewest steps in a part of the run."""
RISE = 0.02
"""Share above the untrained loss; smaller differences may come from the batches."""
RATE_TOO_HIGH = Rule(
    "learning rate too high",
    f"The median training loss of a twentieth of the run is {RISE:.0%} above that of the untrained network, or it "
    f"jumps {SPIKE_DEVIATIONS} standard deviations above the previous steps at {MANY_SPIKES:.0%} of the steps; a "
    f"notice for single jumps, and for a rate {RATES_APART} times the dial's.",
)

STRAIGHT = 2 / 3
"""With very small steps the loss is half-way down when half of the summed learning rate is spent."""
FEWEST_EVALS = 4
RATE_TOO_LOW = Rule(
    "learning rate too low",
    f"When half of its summed learning rate is spent, the loss has made at most {STRAIGHT:.0%} of its way down (with "
    f"very small steps it would have made half); a problem if a rate is also {RATES_APART} times below the dial's, a "
    "notice for either alone.",
)

OVERFITTING = Rule(
    "overfitting",
    f"The held-out loss of the last {EVALS_AFTER} evaluations or more is above its lowest, at the end by "
    f"{OVERFIT_NOTICE:.0%} (a problem from {OVERFIT_PROBLEM:.0%}), while the training loss kept falling.",
)


def not_learning(run: Evidence) -> Verdict:
    """Judge whether the held-out loss fell at all."""
    needed = max(FEWEST_STEPS, run.warmup_steps)
    if not run.evals or run.evals[-1].step < needed:
        return NOT_LEARNING.not_judged(f"no evaluation after step {needed:,} yet")
    start, best = run.untrained_loss, min(run.evals, key=lambda event: event.val_loss)
    fell = 1 - best.val_loss / start
    lowest = f"{best.val_loss:.3f} at its lowest (step {best.step:,})"
    text = f"the held-out loss was {start:.3f} nats before training and {lowest}"
    if fell >= LEAST_FALL or (run.has_base and fell > 0):
        return NOT_LEARNING.fine(text)
    return NOT_LEARNING.problem(
        f"It has learned nothing: {text}.",
        f"try the dial's own learning rates: {run.rerun(_dial_rates(run))}",
    )


def rate_too_high(run: Evidence) -> Verdict:
    """Judge whether the loss rose above its start, or jumped."""
    losses = run.steps.column("loss")
    if len(losses) < BLOCKS:
        return RATE_TOO_HIGH.not_judged(f"only {len(losses)} steps are in the record")
    parts = [(float(np.median(part)), at) for part, at in zip(*_blocks(losses), strict=True)]
    start, (highest, where) = run.untrained_loss, max(parts)
    if run.settings.data.replay:  # of held-out answers, while steps train samples of the base as well
        start = max(start, parts[0][0])
    if highest > (1 + RISE) * start:
        return RATE_TOO_HIGH.problem(
            f"Around step {run.steps[where].step:,} the training loss was {highest:.3f} nats, above the {start:.3f} "
            "of the untrained network.",
            run.lower_rates(4),
        )
    jumps = _jumps(run)
    clipped = np.mean(run.steps.column("grad_norm") > run.settings.train.max_grad_norm)
    if jumps:
        text = (
            f"The training loss jumped at {len(jumps)} of {len(losses):,} steps (the first: {jumps[0]:,}), and the "
            f"gradient was clipped in {clipped:.0%} of them"
        )
        if len(jumps) >= MANY_SPIKES * len(losses):
            return RATE_TOO_HIGH.problem(f"{text}.", run.lower_rates(2))
        return RATE_TOO_HIGH.notice(f"{text}: rarely enough to come from single batches.", run.lower_rates(2))
    if (apart := _rates_apart(run)) is not None and max(apart) >= RATES_APART:
        return RATE_TOO_HIGH.notice(
            f"A learning rate is {max(apart):.3g} times the dial's, which was tuned; so far the loss shows no harm.",
            _to_dial(run),
        )
    return RATE_TOO_HIGH.fine(
        f"the loss did not jump in {len(losses):,} steps, and no part of the run was above the untrained {start:.3f}"
    )


def rate_too_low(run: Evidence) -> Verdict:
    """Judge whether the loss fell in a straight line."""
    apart = _rates_apart(run)
    low = apart is not None and min(apart) <= 1 / RATES_APART
    slow = "" if apart is None else f"a learning rate is {min(apart):.3g} times the dial's"
    if not run.evals or run.evals[-1].step < FEWEST_STEPS or len(run.evals) < FEWEST_EVALS:
        if low:
            return RATE_TOO_LOW.notice(f"The run is too short to judge, but {slow}.", _to_dial(run))
        return RATE_TOO_LOW.not_judged(f"fewer than {FEWEST_EVALS} evaluations, or {FEWEST_STEPS} steps")
    start, last = run.untrained_loss, run.evals[-1].val_loss
    if start - last < LEAST_FALL * start:
        if low:
            return RATE_TOO_LOW.problem(f"The loss hardly moved, and {slow}.", _to_dial(run))
        return RATE_TOO_LOW.not_judged("the loss did not fall, and the rates are normal")
    half_way = _loss_half_way(run)
    if half_way is None:
        return RATE_TOO_LOW.not_judged("the learning rates are not in the record")
    done = (start - half_way) / (start - last)
    text = f"with half of its summed learning rate spent, it had made {done:.0%} of its way down"
    if done <= STRAIGHT and low:
        return RATE_TOO_LOW.problem(
            f"The loss is still falling in a straight line: {text}, and {slow}.", _to_dial(run)
        )
    if done <= STRAIGHT:
        return RATE_TOO_LOW.notice(
            f"The loss is still falling in a straight line: {text}; more steps or higher rates would take it further.",
            run.rerun({"train.steps": 4 * run.num_steps}),
        )
    if low:
        return RATE_TOO_LOW.notice(f"The loss has levelled out ({text}), but {slow}.", _to_dial(run))
    return RATE_TOO_LOW.fine(text)


def overfitting(run: Evidence) -> Verdict:
    """Judge whether the held-out loss rose while the training loss fell."""
    if len(run.evals) < 1 + EVALS_AFTER:
        return OVERFITTING.not_judged(f"there are only {len(run.evals)} evaluations")
    best, last = min(run.evals, key=lambda event: event.val_loss), run.evals[-1]
    lowest = f"lowest at step {best.step:,} ({best.val_loss:.3f} nats)"
    text = f"the held-out loss was {lowest} and is {last.val_loss:.3f} now"
    rise = held_out_rise(run.steps, run.evals, run.untrained_loss)
    if rise is None:
        return OVERFITTING.fine(text)
    then, now = rise.training_then, rise.training_now
    if not rise.by_heart:
        return OVERFITTING.fine(
            f"{text}, but the training loss did not fall either ({then:.3f} and {now:.3f})"
        )
    verdict = OVERFITTING.problem if rise.share >= OVERFIT_PROBLEM else OVERFITTING.notice
    return verdict(
        f"It has been memorising its text since step {best.step:,}: {text}, {rise.share:.1%} above, while the "
        f"training loss fell from {then:.3f} to {now:.3f}.",
        f"train on more text, or stop at that step: {run.rerun({'train.steps': max(1, best.step)})}",
    )


def spikes(losses: Sequence[float]) -> list[int]:
    """Return the indices of losses :data:`SPIKE_DEVIATIONS` standard deviations above the mean of previous losses.

    A spike is not among the previous losses of the next one, which it would hide.
    """
    indices = []
    before: deque[float] = deque()
    total, squares = 0.0, 0.0
    for index, loss in enumerate(losses):
        value = loss - losses[0]  # shifted, so that the difference of two sums of squares keeps its digits
        if len(before) >= SPIKE_FEWEST:
            mean = total / len(before)
            deviation = math.sqrt(max(0.0, squares / len(before) - mean * mean))
            if value - mean > SPIKE_DEVIATIONS * deviation:
                indices.append(index)
                continue
        before.append(value)
        total, squares = total + value, squares + value * value
        if len(before) > SPIKE_WINDOW:
            oldest = before.popleft()
            total, squares = total - oldest, squares - oldest * oldest
    return indices


def _jumps(run: Evidence) -> list[int]:
    """Return the steps at which the loss jumped.

    In a run that trains samples of its base beside the answers, single steps are compared as in training
    (:mod:`etude.train.spikes`); nothing is known of them where the text of the run is gone.
    """
    if not run.settings.data.replay:
        return [run.steps[index].step for index in spikes(run.steps.column("loss").tolist())]
    watch = LossWatch(shares=run.shares)
    return [
        event.step for event in run.steps if run.shares and watch.spike(event.step, event.loss) is not None
    ]


def _blocks(losses: Float64) -> tuple[list[Float64], list[int]]:
    """Return the parts of the run, and the index of the middle of each."""
    edges = np.linspace(0, len(losses), min(BLOCKS, len(losses) // BLOCK_STEPS) + 1).astype(int)
    pairs = list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
    return [losses[a:b] for a, b in pairs], [(a + b) // 2 for a, b in pairs]


def _loss_half_way(run: Evidence) -> float | None:
    """Return the held-out loss when half of the summed learning rate was spent, interpolated between evaluations."""
    steps, rates = run.history.steps, run.history.steps.column("lr")
    steps = steps.where((steps.column("step") <= run.evals[-1].step) & (rates > 0) & (rates < math.inf))
    if not steps:
        return None
    with np.errstate(over="ignore"):  # a damaged record may hold any number
        spent = np.cumsum(steps.column("lr"))
    half_way = steps[int(np.searchsorted(spent, spent[-1] / 2))].step
    return float(np.interp(half_way, [e.step for e in run.evals], [e.val_loss for e in run.evals]))


def _rates_apart(run: Evidence) -> tuple[float, ...] | None:
    """Return the peak rates over the dial's; None for an update rule whose rates the dial was not tuned with."""
    if not rule_named(run.settings.train.optimizer).swept:
        return None
    return tuple(get_value(run.settings, key) / value for key, value in _dial_rates(run).items())


def _dial_rates(run: Evidence) -> dict[str, float]:
    return {key: rate.value for key, rate in dial_rates(run.settings).items()}


def _to_dial(run: Evidence) -> str:
    return f"compare with the dial's rates: {run.rerun(_dial_rates(run))}"
