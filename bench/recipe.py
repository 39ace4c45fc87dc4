"""One training without a run folder: the loss of a recipe on a text, as a line of JSON. For sweeps.

    python bench/recipe.py builtin:primer train.steps=560 train.lr=0.01 train.muon_lr=0.005

The first argument names the sources (several with commas), the others are settings. The whole validation part is scored
at a quarter, a half and the end of the steps. Runs eagerly and on one thread unless asked otherwise, so that several
recipes can be tried side by side: losses do not depend on either beyond rounding.
"""

from __future__ import annotations

import io
import json
import sys
import time

from rich.console import Console

from etude.config import load_settings, resolved
from etude.train.loop import Loop
from etude.train.plan import initial_state, next_token_objective
from etude.train.validation import ValidationText
from etude.workflow.plan import make_plan


def main() -> None:
    sources, *overrides = sys.argv[1:]
    values = {"data.sources": tuple(sources.split(","))}
    settings = load_settings(None, ["device.threads=1", "data.workers=1", *overrides], values)
    plan = make_plan(settings, Console(file=io.StringIO()))
    state = initial_state(plan)
    model = state.model
    loop = Loop(state, next_token_objective(plan, state), plan.settings.train, plan.device)
    context = resolved(plan.settings.train.context, "train.context")
    validation = ValidationText(plan.data.validation, context, plan.device)
    num_steps = loop.objective.num_steps
    scores = {}
    begin = time.perf_counter()
    while state.step < num_steps:
        loop.one_step()
        if state.step in (num_steps // 4, num_steps // 2, num_steps):
            scores[state.step] = validation.score(model)
    result = {
        "settings": overrides,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "tokens": state.tokens_seen,
        "loss": {step: round(score.loss, 4) for step, score in scores.items()},
        "bits_per_byte": {step: round(score.bits_per_byte, 4) for step, score in scores.items()},
        "seconds": round(time.perf_counter() - begin),
    }
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
