"""Training objectives: the contract, and one file for each objective."""

from etude.train.objectives.contract import (
    LossScope,
    Objective,
    ObjectiveKind,
    ObjectiveParts,
    objective_kind,
    require_objective,
)
from etude.train.objectives.next_token import NextToken, next_token
from etude.train.objectives.prefetch import Prefetched, prefetched

__all__ = [
    "LossScope",
    "NextToken",
    "Objective",
    "ObjectiveKind",
    "ObjectiveParts",
    "Prefetched",
    "next_token",
    "objective_kind",
    "prefetched",
    "require_objective",
]
