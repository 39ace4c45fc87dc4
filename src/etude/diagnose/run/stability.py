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
"""Share of the updates that may be skipped in a run that goes well otherwise."""
NOT_FINITE = Rule(
    "not a finite number",
    "The training loss, its gradient or the held-out loss was NaN or infinite, or the run failed by it; worth a notice "
    f"where fewer than {SELDOM:.0%} of the updates were skipped and the last losses are finite.",
)
DIVERGED = Rule(
    "diverged",
    f"At its end the training loss stands {ABOVE_UNTRAINED:.0%} above that of the untrained network, or has lost "
    f"{GAIN_LOST:.0%} of what it had gained; judged from {FEWEST_STEPS} steps on, or where it doubled.",
)
_WORDS = re.compile(r"\b(nan|inf)\b|not a finite number")


def numbers_not_finite(run: Evidence) -> Verdict:
    """Judge whether the run came to numbers that are not finite."""
    found = not_finite(run.history)
    if found is None:
        if run.state == "failed" and _WORDS.search(run.reason):
            return NOT_FINITE.problem(f"It failed: {run.reason}.", run.lower_rates(10))
        return NOT_FINITE.fine(f"all losses of {len(run.history.steps):,} steps are finite")
    finding = not_finite_sentence(found)
    failed = run.state == "failed" and _WORDS.search(run.reason) is not None
    if found.recovered and not failed and found.skipped < SELDOM * max(1, run.last_step):
        return NOT_FINITE.notice(f"{finding} It recovered.", run.lower_rates(2))
    return NOT_FINITE.problem(finding, run.lower_rates(10))


def loss_diverged(run: Evidence) -> Verdict:
    """Judge whether the training loss rose for good."""
    if not run.steps:
        return DIVERGED.not_judged("no step is in the record")
    found = divergence(run.steps, run.untrained_loss)
    if found is None:
        return DIVERGED.fine(f"the training loss did not rise for good in {len(run.steps):,} steps")
    return DIVERGED.problem(divergence_sentence(found), run.lower_rates(4))


def not_finite_sentence(found: NotFinite) -> str:
    """Return the finding in words."""
    skipped = f", and {found.skipped:,} updates were skipped" if found.skipped else ""
    return f"From step {found.step:,} on a loss or gradient was not a finite number{skipped}."


def divergence_sentence(found: Divergence) -> str:
    """Return the finding in words."""
    return (
        f"It diverged: from step {found.step:,} on the training loss rose from {found.lowest:.3f} to "
        f"{_nats(found.last)} nats per token at step {found.last_step:,}."
    )


def _nats(value: float) -> str:
    return f"{value:.3f}" if value < 1000 else f"{value:.3g}"


def broken_sentence(history: RunHistory) -> str:
    """Return in words that a run came to numbers that are not finite, or diverged; nothing for another run."""
    found = not_finite(history)
    if found is not None and not found.recovered:
        return not_finite_sentence(found)
    diverged = (
        None if found is not None or not history.steps else divergence(history.steps, untrained(history))
    )
    return "" if diverged is None else divergence_sentence(diverged)


def untrained(history: RunHistory) -> float:
    """Return nats per token of the network before training, from the record: its first evaluation or first step."""
    first = history.evals[0] if history.evals else None
    return first.val_loss if first is not None and first.step == 0 else history.steps[0].loss
