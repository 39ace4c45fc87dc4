"""Rules on the held-out text: is it apart from training, is it large enough, is it predicted better than by counts?"""

from __future__ import annotations

from etude.diagnose.run.course import OVERFIT_NOTICE
from etude.diagnose.run.evidence import Absent, Evidence
from etude.diagnose.run.losses import LossSpread
from etude.diagnose.run.overlap import COPY_BYTES, RUN_BYTES
from etude.diagnose.run.verdict import Rule, Verdict

LEAK = 0.01
"""Text known by heart costs nearly nothing, so a share of it may take as large a share off the loss; a hundredth of the
loss is what two settings are told apart by."""
DATA_LEAK = Rule(
    "data leak between the parts",
    f"{LEAK:.0%} of the held-out text stands word for word in the training text, in runs of {RUN_BYTES} bytes or more: "
    f"a problem when these are copies (of {COPY_BYTES} bytes, or of half a document), else a notice.",
)

ERRORS = 2.0
"""Standard errors: about 95 of 100 differences by chance alone lie within."""
TOO_SMALL = Rule(
    "validation set too small",
    f"A difference lies within {ERRORS:g} standard errors of the choice of the held-out text: that between the two "
    "newest checkpoints (paired, on the same text), or that between the model and the nearest n-gram model (unpaired, "
    "so an upper bound).",
)

LADDER = Rule(
    "still above the n-gram ladder",
    "A run that made its steps predicts better than every n-gram model counted on its text; a problem when not even "
    "better than the 2-gram.",
)


def data_leak(run: Evidence) -> Verdict:
    found = run.overlap
    if isinstance(found, Absent):
        return DATA_LEAK.not_judged(found.why)
    text = (
        f"{found.shared:.1%} of {found.held_out_bytes:,} held-out bytes stand word for word in "
        f"{found.training_bytes:,} bytes of training text"
    )
    if found.shared < LEAK:
        return DATA_LEAK.fine(text)
    text = f'{text} (the longest run: {found.longest:,} bytes from "{found.example}")'
    if found.copied < LEAK:
        return DATA_LEAK.notice(
            f"The text repeats itself: {text}; its held-out loss is lower than that of new text by up to that share.",
            "say so where the loss is reported",
        )
    advice = "remove the copies from the text"
    if run.settings.data.split == "tail" or run.settings.data.deduplicate != "near":
        advice = f"let copies be dropped: {run.again({'data.split': 'hash', 'data.deduplicate': 'near'})}"
    return DATA_LEAK.problem(
        f"The held-out loss is too low: {text}, {found.copied:.1%} as whole documents or long copies.", advice
    )


def validation_too_small(run: Evidence) -> Verdict:
    spread = run.losses
    if isinstance(spread, Absent):
        return TOO_SMALL.not_judged(spread.why)
    error = ERRORS * spread.error
    found = [
        (text, needed) for text, needed in (_checkpoints(spread), _nearest_rung(run, spread)) if needed > 1
    ]
    if not found:
        return TOO_SMALL.fine(
            f"its loss is known to +-{error:.3f} nats from {spread.evaluated_tokens:,} tokens in {len(spread.tokens)} "
            f"{spread.unit}, less than the differences shown"
        )
    times = max(needed for _, needed in found)
    return TOO_SMALL.notice(f"{' '.join(text for text, _ in found)}", _more_text(run, spread, times))


def above_the_ladder(run: Evidence) -> Verdict:
    ladder = run.history.ladder
    if ladder is None or not ladder.rungs or not run.evals:
        return LADDER.not_judged("no ladder, or no evaluation" if ladder is None else "no evaluation")
    bits = run.evals[-1].bits_per_byte
    best = min(ladder.rungs, key=lambda rung: rung.bits_per_byte)
    if bits < best.bits_per_byte:
        count = f"{best.bits_per_byte:.3f} of the best count, the {best.order}-gram"
        return LADDER.fine(f"its {bits:.3f} bits a byte are below the {count}")
    passed = ladder.passed(bits)
    reached = f"better than the {passed}-gram at most" if passed else "no better than the first of them"
    text = (
        f"With {bits:.3f} bits a byte it is {reached}; counting alone reaches {best.bits_per_byte:.3f} "
        f"({best.order}-gram)"
    )
    ended = run.last_step >= run.num_steps
    advice = f"more steps: {run.again({'train.steps': 4 * run.num_steps})}" if ended else run.go_on
    if run.evals[-1].val_loss > (1 + OVERFIT_NOTICE) * min(event.val_loss for event in run.evals):
        advice = "more text: its held-out loss has been lower, so more steps on this one would not help"
    if ended and passed < 2:
        return LADDER.problem(f"{text}.", advice)
    return LADDER.notice(f"{text}." if ended else f"{text}, with steps still to go.", advice)


def _checkpoints(spread: LossSpread) -> tuple[str, float]:
    """What to say, and by how much the held-out text would have to grow; at most 1 where there is nothing to say."""
    if spread.difference is None:
        return "", 0.0
    fell, error = spread.difference
    text = (
        f"From step {spread.steps[0]:,} to {spread.steps[1]:,} the held-out loss changed by {-fell:+.4f} +-"
        f"{ERRORS * error:.4f} nats: that may be chance."
    )
    return text, _times_more(fell, error)


def _nearest_rung(run: Evidence, spread: LossSpread) -> tuple[str, float]:
    """The same of the n-gram model nearest to the last evaluation."""
    ladder, bits_per_nat = run.history.ladder, run.history.bits_per_byte_per_nat
    if ladder is None or not ladder.rungs or bits_per_nat is None:
        return "", 0.0
    bits = run.evals[-1].bits_per_byte
    nearest = min(ladder.rungs, key=lambda rung: abs(rung.bits_per_byte - bits))
    margin, error = nearest.bits_per_byte - bits, spread.error * bits_per_nat
    text = (
        f"It is {abs(margin):.4f} bits a byte {'below' if margin > 0 else 'above'} the {nearest.order}-gram, and the "
        f"choice of the text is good for up to +-{ERRORS * error:.4f}: which of the two is better is not settled."
    )
    return text, _times_more(margin, error)


def _times_more(difference: float, error: float) -> float:
    """How many times as much text would part the two: the error falls with the root of it."""
    if error == 0:
        return 0.0
    return (ERRORS * error / abs(difference)) ** 2 if difference else float("inf")


def _more_text(run: Evidence, spread: LossSpread, times: float) -> str:
    there = run.text.validation_tokens
    if times > 100:
        return (
            "take the two as equal: telling them apart would take more than 100 times as much held-out text"
        )
    wanted = round(spread.evaluated_tokens * times)
    if there is not None and there > 1.5 * spread.evaluated_tokens:
        evaluated = min(wanted, there)
        return f"evaluate on more of it ({there:,} tokens are held out): {run.again({'train.eval_tokens': evaluated})}"
    fraction = min(0.5, run.settings.data.validation_fraction * times)
    tokens = max(wanted, run.settings.train.eval_tokens)
    return (
        f"hold out about {wanted:,} tokens: "
        f"{run.again({'data.validation_fraction': fraction, 'train.eval_tokens': tokens})}"
    )
