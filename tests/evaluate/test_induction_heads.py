"""The induction head is found where it is planted, and none is found in random weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from etude.errors import InputError
from etude.evaluate.induction_heads import induction_heads
from etude.watch.named_tensor import Named
from networks import make_config, make_network


def test_random_weights_are_near_chance() -> None:
    found = induction_heads(make_network(make_config("llama"), 0))
    assert found.scores.shape == (3, 4)
    assert 0 < found.chance < 0.1
    assert np.abs(found.scores - found.chance).max() < 0.1
    again = induction_heads(make_network(make_config("llama"), 0))
    assert (again.scores == found.scores).all()


def test_a_planted_head_is_named_and_measured_on_fresh_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """One draw favours another head by chance: the head is chosen on the first and measured on the rest."""
    seeds = []

    def scores(_: object, *, seed: int) -> tuple[Named, float]:
        seeds.append(seed)
        found = torch.full((3, 4), 0.03)
        found[2, 1] = 0.8 + 0.01 * len(seeds)
        if len(seeds) > 1:
            found[0, 0] = 0.95
        return Named("induction score", ("layer", "head"), found), 0.03

    monkeypatch.setattr("etude.watch.prompts.induction_scores", scores)
    found = induction_heads(object(), seed=2)  # type: ignore[arg-type]
    assert (found.layer, found.head) == (2, 1)
    assert found.best.value == pytest.approx(0.835)
    assert found.above_chance
    assert len(set(seeds)) == len(seeds) == 5


def test_a_network_without_attention_has_no_heads() -> None:
    with pytest.raises(InputError, match="no heads"):
        induction_heads(make_network(make_config("mlp"), 0))
