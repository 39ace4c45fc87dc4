"""Rules that come before all others: values that are not finite, and a loss that diverged."""

from __future__ import annotations

import re

from etude.diagnose.run.course import (
    ABOVE_UNTRAINED,
    FEWEST_STEPS,
    GAIN_LOST,
    Divergence,
    NotFinite,
    divergence,
    not_finite,
)
from etude.diagnose.run.evidence import Evidence
from etude.diagnose.run.verdict import Rule, Verdict
from etude.run.history import RunHistory

SELDOM = 0.01
"""Share of the updates that may be skipped in an otherwise healthy run."""
NOT_FINITE = Rule(
    "not a finite number",
    "The training loss, its gradient or the held-out loss was NaN or infinite, or the run failed because of it; a "
    f"notice if fewer than {SELDOM:.0%} of the updates were skipped and the last losses are finite.",
)
DIVERGED = Rule(
    "diverged",
    f"At the end the training loss is {ABOVE_UNTRAINED:.0%} above that of the untrained network, or has lost "
    f"{GAIN_LOST:.0%} of what it had gained; judged from {FEWEST_STEPS} steps on, or if it doubled.",
)
_WORDS = re.compile(r"\b(nan|inf)\b|not a finite number")


def numbers_not_finite(run: Evidence) -> Verdict:
    """Judge whether the run had numbers that are not finite."""
    fault = not_finite(run.history)
    if fault is None:
        if run.state == "failed" and _WORDS.search(run.reason):
            return NOT_FINITE.problem(f"It failed: {run.reason}.", run.lower_rates(10))
        return NOT_FINITE.fine(f"all losses of {len(run.history.steps):,} steps are finite")
    finding = not_finite_sentence(fault)
    failed = run.state == "failed" and _WORDS.search(run.reason) is not None
    if fault.recovered and not failed and fault.skipped < SELDOM * max(1, run.last_step):
        return NOT_FINITE.notice(f"{finding} It recovered.", run.lower_rates(2))
    return NOT_FINITE.problem(finding, run.lower_rates(10))


def loss_diverged(run: Evidence) -> Verdict:
    """Judge whether the training loss rose for good."""
    if not run.steps:
        return DIVERGED.not_judged("no step is in the record")
    fault = divergence(run.steps, run.untrained_loss)
    if fault is None:
        return DIVERGED.fine(f"the training loss did not rise for good in {len(run.steps):,} steps")
    return DIVERGED.problem(divergence_sentence(fault), run.lower_rates(4))


def not_finite_sentence(fault: NotFinite) -> str:
    """Return the finding as a sentence."""
    skipped = f", and {fault.skipped:,} updates were skipped" if fault.skipped else ""
    return f"From step {fault.step:,} on a loss or gradient was not a finite number{skipped}."


def divergence_sentence(fault: Divergence) -> str:
    """Return the finding as a sentence."""
    return (
        f"It diverged: from step {fault.step:,} on the training loss rose from {fault.lowest:.3f} to "
        f"{_nats(fault.last)} nats per token at step {fault.last_step:,}."
    )


def _nats(value: float) -> str:
    return f"{value:.3f}" if value < 1000 else f"{value:.3g}"


def broken_sentence(history: RunHistory) -> str:
    """Return a sentence if the run had numbers that are not finite, or diverged; otherwise an empty text."""
    fault = not_finite(history)
    if fault is not None and not fault.recovered:
        return not_finite_sentence(fault)
    diverged = (
        None
        if fault is not None or not history.steps or history.rewards  # their loss has no level
        else divergence(history.steps, untrained(history))
    )
    return "" if diverged is None else divergence_sentence(diverged)


def untrained(history: RunHistory) -> float:
    """Return the loss before training, from the record: the first evaluation, or else the first step."""
    if history.preferences:
        return history.preferences[0].loss
    first = history.evals[0] if history.evals else None
    return first.val_loss if first is not None and first.step == 0 else history.steps[0].loss
