"""What a run can be trained to do: the contract, and one file for each objective."""

from etude.train.objectives.answer_only import AnswerScope
from etude.train.objectives.contract import (
    OBJECTIVES,
    LossScope,
    Objective,
    ObjectiveKind,
    ObjectiveParts,
)
from etude.train.objectives.next_token import NextToken, next_token
from etude.train.objectives.prefetch import Prefetched, prefetched

__all__ = [
    "OBJECTIVES",
    "AnswerScope",
    "LossScope",
    "NextToken",
    "Objective",
    "ObjectiveKind",
    "ObjectiveParts",
    "Prefetched",
    "next_token",
    "prefetched",
]
