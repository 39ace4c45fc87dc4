"""Find the attention heads that look at what followed an earlier occurrence of the current token."""

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
    """The induction scores of all heads.

    scores: (layer, head) share of attention on the token after the earlier occurrence, over random tokens read twice;
    chance: the score of a head that attends uniformly to everything it sees; best: the highest head's score, over
    independent draws of the tokens.
    """

    scores: NDArray[np.float64]
    chance: float
    layer: int
    head: int
    best: Estimate

    @property
    def above_chance(self) -> bool:
        return self.best.interval.low > self.chance


def induction_heads(model: LanguageModel, *, seed: int = 0) -> InductionHeads:
    """Measure all heads on random tokens.

    The highest head is chosen on one draw and measured on others, because the maximum of many heads exceeds its own
    mean.
    Raises InputError for a network without attention, or with too short a context.
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
        fresh.mean(0), chance, layer, head, mean([float(score) for score in fresh[:, layer, head]])
    )
