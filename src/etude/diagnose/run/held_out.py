"""Rules about the held-out text: is it separate from training, large enough, and predicted better than by counts?"""

from __future__ import annotations

from etude.diagnose.run.course import OVERFIT_NOTICE
from etude.diagnose.run.evidence import Absent, Evidence
from etude.diagnose.run.losses import LossSpread
from etude.diagnose.run.overlap import COPY_BYTES, RUN_BYTES
from etude.diagnose.run.verdict import Rule, Verdict

LEAK = 0.01
"""Memorised text costs almost no loss, so a leaked share lowers the loss by up to that share; settings are compared by
differences of a hundredth."""
DATA_LEAK = Rule(
    "data leak between the parts",
    f"{LEAK:.0%} of the held-out text occurs word for word in the training text, in runs of {RUN_BYTES} bytes or more: "
    f"a problem if these are copies (of {COPY_BYTES} bytes, or of half a document), else a notice.",
)

ERRORS = 2.0
"""Standard errors: about 95 of 100 differences by chance are within them."""
TOO_SMALL = Rule(
    "validation set too small",
    f"A difference is within {ERRORS:g} standard errors due to the choice of the held-out text: between the two newest "
    "checkpoints (paired, on the same text), or between the model and the nearest n-gram model (unpaired, so an upper "
    "bound).",
)

LADDER = Rule(
    "still above the n-gram ladder",
    "A completed run must predict better than every n-gram model of its text; a problem if not even better than the "
    "2-gram.",
)


def data_leak(run: Evidence) -> Verdict:
    """Judge how much of the held-out text occurs in training."""
    shared = run.overlap
    if isinstance(shared, Absent):
        return DATA_LEAK.not_judged(shared.why)
    text = (
        f"{shared.shared:.1%} of {shared.held_out_bytes:,} held-out bytes occur word for word in "
        f"{shared.training_bytes:,} bytes of training text"
    )
    if shared.shared < LEAK:
        return DATA_LEAK.fine(text)
    text = f'{text} (the longest run: {shared.longest:,} bytes from "{shared.example}")'
    if shared.copied < LEAK:
        return DATA_LEAK.notice(
            f"The text repeats itself: {text}; its held-out loss is lower than that of new text by up to that share.",
            "mention this wherever you report the loss",
        )
    advice = "remove the copies from the text"
    if run.settings.data.split == "tail" or run.settings.data.deduplicate != "near":
        advice = f"drop the copies: {run.rerun({'data.split': 'hash', 'data.deduplicate': 'near'})}"
    return DATA_LEAK.problem(
        f"The held-out loss is too low: {text}, {shared.copied:.1%} as whole documents or long copies.",
        advice,
    )


def validation_too_small(run: Evidence) -> Verdict:
    """Judge whether differences exceed the error of the held-out sample."""
    spread = run.losses
    if isinstance(spread, Absent):
        return TOO_SMALL.not_judged(spread.why)
    error = ERRORS * spread.error
    unsettled = [
        (text, needed) for text, needed in (_checkpoints(spread), _nearest_rung(run, spread)) if needed > 1
    ]
    if not unsettled:
        return TOO_SMALL.fine(
            f"its loss is known to +-{error:.3f} nats from {spread.evaluated_tokens:,} tokens in {len(spread.tokens)} "
            f"{spread.unit}, which is less than the differences shown"
        )
    times = max(needed for _, needed in unsettled)
    return TOO_SMALL.notice(f"{' '.join(text for text, _ in unsettled)}", _more_text(run, spread, times))


def above_the_ladder(run: Evidence) -> Verdict:
    """Judge whether the model beats every n-gram model."""
    ladder = run.history.ladder
    if run.history.preferences:
        return LADDER.not_judged("it is trained to prefer answers, not to predict them")
    if ladder is None or not ladder.rungs or not run.evals:
        return LADDER.not_judged("no ladder, or no evaluation" if ladder is None else "no evaluation")
    bits = run.evals[-1].bits_per_byte
    best = min(ladder.rungs, key=lambda rung: rung.bits_per_byte)
    if bits < best.bits_per_byte:
        count = f"{best.bits_per_byte:.3f} of the best count, the {best.order}-gram"
        return LADDER.fine(f"its {bits:.3f} bits per byte are below the {count}")
    passed = ladder.passed(bits)
    reached = f"better than the {passed}-gram at most" if passed else "no better than the first of them"
    text = (
        f"With {bits:.3f} bits per byte it is {reached}; counting alone reaches {best.bits_per_byte:.3f} "
        f"({best.order}-gram)"
    )
    ended = run.last_step >= run.num_steps
    advice = f"more steps: {run.rerun({'train.steps': 4 * run.num_steps})}" if ended else run.resume_command
    if run.evals[-1].val_loss > (1 + OVERFIT_NOTICE) * min(event.val_loss for event in run.evals):
        advice = "more text: its held-out loss was lower before, so more steps on this text would not help"
    if ended and passed < 2:
        return LADDER.problem(f"{text}.", advice)
    return LADDER.notice(f"{text}." if ended else f"{text}, with steps still to go.", advice)


def _checkpoints(spread: LossSpread) -> tuple[str, float]:
    """Return the finding, and the factor by which the held-out text would have to grow; at most 1 without a finding."""
    if spread.difference is None:
        return "", 0.0
    fell, error = spread.difference
    text = (
        f"From step {spread.steps[0]:,} to {spread.steps[1]:,} the held-out loss changed by {-fell:+.4f} +-"
        f"{ERRORS * error:.4f} nats, which may be chance."
    )
    return text, _times_more(fell, error)


def _nearest_rung(run: Evidence, spread: LossSpread) -> tuple[str, float]:
    """Return the same for the n-gram model nearest to the last evaluation."""
    ladder, bits_per_nat = run.history.ladder, run.history.bits_per_byte_per_nat
    if ladder is None or not ladder.rungs or bits_per_nat is None:
        return "", 0.0
    bits = run.evals[-1].bits_per_byte
    nearest = min(ladder.rungs, key=lambda rung: abs(rung.bits_per_byte - bits))
    margin, error = nearest.bits_per_byte - bits, spread.error * bits_per_nat
    text = (
        f"It is {abs(margin):.4f} bits per byte {'below' if margin > 0 else 'above'} the {nearest.order}-gram, and the "
        f"choice of the text alone may cause +-{ERRORS * error:.4f}: which of the two is better is undecided."
    )
    return text, _times_more(margin, error)


def _times_more(difference: float, error: float) -> float:
    """Return how many times as much text would separate the two: the error falls with its square root."""
    if error == 0:
        return 0.0
    return (ERRORS * error / abs(difference)) ** 2 if difference else float("inf")


def _more_text(run: Evidence, spread: LossSpread, times: float) -> str:
    available = run.text.validation_tokens
    if times > 100:
        return "treat the two as equal: separating them would take more than 100 times as much held-out text"
    needed = round(spread.evaluated_tokens * times)
    if available is not None and available > 1.5 * spread.evaluated_tokens:
        evaluated = min(needed, available)
        command = run.rerun({"train.eval_tokens": evaluated})
        return f"evaluate on more of it ({available:,} tokens are held out): {command}"
    fraction = min(0.5, run.settings.data.validation_fraction * times)
    tokens = max(needed, run.settings.train.eval_tokens)
    return (
        f"hold out about {needed:,} tokens: "
        f"{run.rerun({'data.validation_fraction': fraction, 'train.eval_tokens': tokens})}"
    )
