"""The numbers by which ``--time`` plans a run on conversations. All of them are in this file.

The rates themselves, and the usual number of passes, are those of any tuning: :mod:`etude.plan.base_values`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Choice:
    """What is chosen from a number of passes over the conversations on: as many as fit the time.

    Attributes:
        passes: fewest passes.
        rank: of the adapter.
        rate: factor of the usual learning rate.
        why: of the rank.
    """

    passes: float
    rank: int
    rate: float
    why: str


CHOICES = (
    Choice(
        0.0, 8, 1.0, "less than one pass fits the time, which teaches little more than the form of an answer"
    ),
    Choice(1.0, 16, 1.0, "the usual rank"),
)
"""In ascending order of passes. Cautious, not measured: a rank of 8 has half the parameters to learn, at the same
rate, since alpha follows the rank."""
WHY_ADAPTER = (
    "an adapter takes less time and memory than all weights and forgets less (--no-lora: all weights)"
)
"""Biderman et al. 2024, "LoRA learns less and forgets less"."""
LEAST_UPDATES = 8
"""Fewest updates of a run with a time budget: fewer hardly move a model, and such a time is refused."""
EVALUATION_SHARE = 0.15
"""Largest share of the time for all evaluations; fewer are made where they would take more."""
REPORT_SHARE = 0.2
"""Largest share of the time for the report at the end, if at least :data:`LEAST_QUESTIONS` fit into it."""
LEAST_QUESTIONS = 6
"""Fewest held-out questions of a report (all, where there are fewer): with fewer the verdict is "cannot tell"."""
CAREFUL = 1.25
"""Factor of all estimated costs of the report: a promise is kept by what is not asked."""


def choice_for(passes: float) -> Choice:
    """Return the choice for so many passes."""
    return next(choice for choice in reversed(CHOICES) if passes >= choice.passes)
