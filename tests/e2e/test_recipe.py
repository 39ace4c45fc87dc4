"""A short run of the default recipe with a fixed seed: if its loss gets worse, the recipe got worse."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from etude.config import load_settings
from etude.plan.measuring import RealTrial
from etude.plan.plan import Plan, plan_on
from etude.plan.sizes import SHAPES, Size
from etude.train.run_text import text_with_progress

RECORDED, TOLERANCE = 1.1058, 0.03
"""Bits per byte of the recipe when it was last changed, and the tolerance for the rounding of other machines."""


def train_briefly(plan: Plan) -> float:
    """Train a plan without a run folder; return the bits per byte at its end."""
    trial = RealTrial(plan)
    for _ in range(plan.settings.train.steps):
        trial.step()
    return trial.bits_per_byte()


def test_the_recipe_is_no_worse_than_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path))
    settings = load_settings(
        None, ["data.max_bytes=1000000", "data.workers=1", "device.threads=1", "tokenizer.vocab_size=1024"]
    )
    data = text_with_progress(settings, Console(quiet=True))
    reached = train_briefly(plan_on(data, settings, Size(SHAPES[0], 262_144)))
    assert reached < RECORDED * (1 + TOLERANCE), "the default recipe got worse"
    assert reached > RECORDED * (1 - 2 * TOLERANCE), "the default recipe got better: record it here"
