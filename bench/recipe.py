"""Train once without a run folder, and print the loss of a recipe on a text as a line of JSON. For searches.

    python bench/recipe.py builtin:primer train.steps=560 train.lr=0.01 train.muon_lr=0.005

The first argument names the sources (several with commas), the others are settings. The whole validation part is
scored at the end. By default it runs uncompiled and on one thread, so that several recipes can be tried in parallel:
losses depend on either only by rounding.
"""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from etude.config import load_settings
from etude.model.cost import count_parameters
from etude.plan.plan import initial_state, make_objective
from etude.train.loop import Loop
from etude.train.validation import ValidationText
from etude.workflow.prepare import make_plan


def train(sources: Sequence[str], overrides: Sequence[str], eval_tokens: int | None = None) -> dict[str, Any]:
    """Train by the default recipe with ``overrides`` and score the first ``eval_tokens`` of the validation part."""
    values = {"data.sources": tuple(sources)}
    settings = load_settings(None, ["device.threads=1", "data.workers=1", *overrides], values)
    plan, _ = make_plan(settings, Console(file=io.StringIO()))
    state = initial_state(plan)
    objective = make_objective(plan, state)
    loop = Loop(state, objective, plan.settings.train, plan.device)
    begin = time.perf_counter()
    for _ in range(objective.num_steps):
        loop.one_step()
    seconds = time.perf_counter() - begin
    context = plan.settings.train.context
    score = ValidationText(plan.data.validation, context, plan.device, eval_tokens).score(state.model)
    return {
        "settings": " ".join(overrides),
        "parameters": count_parameters(plan.model).total,
        "non_embedding": count_parameters(plan.model).non_embedding,
        "steps": state.step,
        "tokens": state.tokens_seen,
        "train_tokens": plan.data.train.num_tokens,
        "loss": round(score.loss, 4),
        "bits_per_byte": round(score.bits_per_byte, 4),
        "seconds": round(seconds, 1),
    }


if __name__ == "__main__":
    print(json.dumps(train(sys.argv[1].split(","), sys.argv[2:])), flush=True)
