"""Look inside a run: any prediction, activation, gradient and update, at any step::

    from etude import watch

    step = watch.replay("runs/notes", 500)  # replayed, compared with the record, and kept open
    watch.reconcile(step)  # does what is shown explain what was applied?
    watch.node("runs/notes", 500, "model.layers.2.mlp", 17)
    watch.weight("runs/notes", "model.layers.0.self_attn.q_proj.weight", (3, 5))
    watch.prompt("runs/notes", "The fox")  # or a Hugging Face model folder
    watch.compare("runs/notes", "The fox", ["model.layers.1.self_attn.z[2]*0"])
    watch.fork("runs/notes", 500, ["model.layers.0.mlp.gate_proj.bias[17]+1"])

Training carries no hooks: everything shown is computed on demand, by replay. A *node*, or *neuron*, is one unit of a
layer between two linear maps: it sums inputs times weights plus a bias, and applies an activation function.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from etude.watch.api import compare, fork, machine, node, prompt, replay, weight
    from etude.watch.opened_step import open_step
    from etude.watch.prompts import induction_scores
    from etude.watch.reconciliation import reconcile
    from etude.watch.time_machine import TimeMachine

_HOMES = {
    "TimeMachine": "time_machine",
    "compare": "api",
    "fork": "api",
    "induction_scores": "prompts",
    "machine": "api",
    "node": "api",
    "open_step": "opened_step",
    "prompt": "api",
    "reconcile": "reconciliation",
    "replay": "api",
    "weight": "api",
}
__all__ = [
    "TimeMachine",
    "compare",
    "fork",
    "induction_scores",
    "machine",
    "node",
    "open_step",
    "prompt",
    "reconcile",
    "replay",
    "weight",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'etude.watch' has no attribute '{name}'")
    return getattr(importlib.import_module(f"etude.watch.{_HOMES[name]}"), name)
