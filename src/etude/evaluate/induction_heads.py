"""Which heads of a network look back to what came after the same token before, and how far by chance they would."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from etude.evaluate.statistics import Estimate, mean

if TYPE_CHECKING:
    from etude.model.language_model import LanguageModel

_SEEDS = 4


@dataclass(frozen=True)
class InductionHeads:
    """scores: (layer, head), the share of attention that goes to the token behind the earlier occurrence, over random
    tokens read twice; chance: of a head that attends to all it sees alike; best: of the highest head, over independent
    draws of the tokens."""

    scores: NDArray[np.float64]
    chance: float
    layer: int
    head: int
    best: Estimate

    @property
    def above_chance(self) -> bool:
        return self.best.interval.low > self.chance


def induction_heads(model: LanguageModel, *, seed: int = 0) -> InductionHeads:
    """The highest head is chosen on one draw of random tokens and measured on others: the maximum of many heads is
    above its own mean.

    Raises InputError for a network without attention, or one that reads too few tokens.
    """
    from etude.watch.prompts import induction_scores

    draws = []
    chance = 0.0
    for number in range(1 + _SEEDS):
        scores, chance = induction_scores(model, seed=seed * (1 + _SEEDS) + number)
        draws.append(scores.tensor.double().cpu().numpy())
    chosen = int(draws[0].argmax())
    layer, head = divmod(chosen, draws[0].shape[1])
    fresh = np.stack(draws[1:])
    return InductionHeads(
        fresh.mean(0), chance, layer, head, mean([float(one) for one in fresh[:, layer, head]])
    )
