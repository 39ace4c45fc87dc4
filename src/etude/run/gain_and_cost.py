"""What a run has gained and what it has cost, in one sum: the rule of ``train.stop_early``.

The gain is the change of the loss on the held-out text (of conversations: on their held-out answers), the cost that on
the reference text, both since the first evaluation of the run. Both are in bits per byte of their own text. In this
unit, neither counts more because its tokenizer cuts it finer or because more of it was scored, and a sum of 0 means
that a byte of the one text was won for a byte of the other. The sum falls while the run learns more than it forgets.

All of it is a function of recorded evaluations, so a resumed run decides as an uninterrupted one does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from etude.run.events import EvalEvent, ReferenceEvent


@dataclass(frozen=True)
class Balance:
    """Changes since the first evaluation, in bits per byte: on the held-out text, and on the reference text."""

    step: int
    held_out: float
    reference: float

    @property
    def total(self) -> float:
        """The sum; infinity if it is not a number."""
        total = self.held_out + self.reference
        return total if math.isfinite(total) else math.inf

    def __str__(self) -> str:
        return (
            f"{self.total:+.3f} bits per byte: {self.held_out:+.3f} on held-out text and {self.reference:+.3f} on the "
            "reference text"
        )


def balances_of(
    evals: Iterable[EvalEvent], references: Iterable[ReferenceEvent], digest: str | None = None
) -> list[Balance]:
    """Return the balance at each step that scored both texts; with ``digest``, only those of this reference text."""
    costs = {event.step: event.bits_per_byte for event in references if digest in (None, event.digest)}
    both = [(event.step, event.bits_per_byte, costs[event.step]) for event in evals if event.step in costs]
    if not both:
        return []
    _, gain, cost = both[0]
    return [Balance(step, held_out - gain, reference - cost) for step, held_out, reference in both]


def least(balances: Sequence[Balance]) -> Balance | None:
    """Return the balance with the least sum, the earliest of equal ones; None without any."""
    return min(balances, key=lambda balance: balance.total, default=None)


def has_stalled(balances: Sequence[Balance], patience: int) -> bool:
    """Return whether the last ``patience`` balances have no less sum than an earlier one."""
    best = least(balances)
    return best is not None and len(balances) - balances.index(best) > patience
