"""Rules about the network itself: neurons that do nothing, and heads that do not choose."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from etude.diagnose.run.activations import FEWEST_VISIBLE, PEAK, HeadState, NodeState
from etude.diagnose.run.advice import lowered
from etude.diagnose.run.evidence import Absent, Evidence
from etude.diagnose.run.verdict import Rule, Verdict
from etude.watch.activity import DEAD_REACH
from etude.watch.saturation import END

Mask = npt.NDArray[np.bool_]

STUCK_TANH = 0.95
"""Share of the tokens: tanh has almost no gradient at either end, so a neuron mostly at the ends is lost."""
UNITS_NOTICE, UNITS_PROBLEM, LAYER_PROBLEM = 0.01, 0.1, 0.5
"""Share of the neurons of the network, and of one layer."""
UNITS = Rule(
    "dead or saturated units",
    f"A neuron is dead if it never adds more than {DEAD_REACH:g} of the norm of what it is added to, and saturated if "
    f"its activation function is at the same end (within {1 - END:.0%}) at every token, or tanh at either end at "
    f"{STUCK_TANH:.0%} of them; a notice from {UNITS_NOTICE:.0%} of the neurons, a problem from {UNITS_PROBLEM:.0%} "
    f"or {LAYER_PROBLEM:.0%} of a layer.",
)

ALL_QUERIES = 0.99
EVEN = 0.999
"""Share of the entropy of uniform attention, on average: a query's scores then deviate by less than about 0.1. Heads of
the first layer that average the context on purpose reach 0.995."""
HEADS_PROBLEM = 0.5
NAMED_HEADS = 8
_WITH_QK_NORM: dict[str, str | bool] = {
    "model.preset": "qwen3",
    "model.mlp_bias": False,
    "model.qk_norm": True,
}
COLLAPSE = Rule(
    "attention collapse",
    f"A head has collapsed if {ALL_QUERIES:.0%} of its queries put more than {PEAK:.0%} of their weight on a single "
    f"position (entropy collapse, Zhai et al. 2023), or if their mean entropy is above {EVEN:.1%} of that of uniform "
    f"attention, over queries that see {FEWEST_VISIBLE} positions or more; a problem from {HEADS_PROBLEM:.0%} of all "
    "heads.",
)


def idle_units(run: Evidence) -> Verdict:
    """Judge how many neurons are dead or saturated."""
    state = run.network
    if isinstance(state, Absent):
        return UNITS.not_judged(state.why)
    if state.step == 0:
        return UNITS.not_judged("the only checkpoint is of step 0, where no layer adds anything yet")
    dead = [layer.reach <= DEAD_REACH for layer in state.nodes]
    stuck = [
        saturated(layer, state.hidden_act) & ~lost for layer, lost in zip(state.nodes, dead, strict=True)
    ]
    idle = [lost | held for lost, held in zip(dead, stuck, strict=True)]
    share, worst = float(np.concatenate(idle).mean()), int(np.argmax([layer.mean() for layer in idle]))
    text = (
        f"{_total(dead):,} of {sum(map(len, idle)):,} neurons are dead and {_total(stuck):,} saturated on "
        f"{state.num_tokens:,} held-out tokens at step {state.step:,}"
    )
    if share < UNITS_NOTICE:
        return UNITS.fine(text)
    text = f"{text} (layer {state.nodes[worst].layer}: {idle[worst].mean():.0%})."
    advice = f"a lower learning rate keeps more of them alive; {run.lower_rates(2)}"
    if share >= UNITS_PROBLEM or idle[worst].mean() >= LAYER_PROBLEM:
        return UNITS.problem(text, advice)
    return UNITS.notice(text, advice)


def attention_collapse(run: Evidence) -> Verdict:
    """Judge how many heads attend to one position only, or to all alike."""
    state = run.network
    if isinstance(state, Absent):
        return COLLAPSE.not_judged(state.why)
    if not state.heads:
        return COLLAPSE.not_judged("the network has no attention")
    peaked = np.concatenate([layer.peaked for layer in state.heads])
    evenness = np.concatenate([layer.evenness for layer in state.heads])
    num_judged = int((~np.isnan(peaked)).sum())  # a short window shows a head's queries too few positions
    if not num_judged:
        return COLLAPSE.not_judged(f"no query sees {FEWEST_VISIBLE} positions")
    peaked_heads, even_heads = peaked >= ALL_QUERIES, evenness > EVEN
    if not (peaked_heads | even_heads).any():
        usual = f"their median evenness is {np.nanmedian(evenness):.2f} of uniform attention"
        return COLLAPSE.fine(f"all {num_judged} heads choose, at step {state.step:,}; {usual}")
    text = " and ".join(
        f"{which.sum()} attend {what} ({_named(state.heads, which)})"
        for which, what in (
            (peaked_heads, "to a single position on every query"),
            (even_heads, "to all positions alike"),
        )
        if which.any()
    )
    as_it_is = run.model.qk_norm or run.has_base
    changes: dict[str, float | str | bool] = {} if as_it_is else dict(_WITH_QK_NORM)
    changes.update(lowered(run.settings, 2))
    normalised = "" if as_it_is else " with normalised queries and keys"
    advice = f"a lower rate{normalised}: {run.rerun(changes)}" if changes else run.lower_rates(2)
    verdict = (
        COLLAPSE.problem
        if (peaked_heads | even_heads).sum() >= HEADS_PROBLEM * num_judged
        else COLLAPSE.notice
    )
    return verdict(f"Of {num_judged} heads {text}, at step {state.step:,}.", advice)


def _named(heads: Sequence[HeadState], which: Mask) -> str:
    """Return ``layer.head`` of some heads, as many as fit on a line."""
    names = [f"{layer.layer}.{head}" for layer in heads for head in range(len(layer.peaked))]
    chosen = [name for name, wanted in zip(names, which, strict=True) if wanted]
    return "layer.head " + ", ".join(chosen[:NAMED_HEADS]) + (", ..." if len(chosen) > NAMED_HEADS else "")


def saturated(layer: NodeState, hidden_act: str) -> Mask:
    """(F,) True for neurons whose activation function is saturated."""
    if hidden_act == "tanh":
        return np.asarray(layer.low + layer.high >= STUCK_TANH)
    return np.asarray((layer.low == 1) | (layer.high == 1))


def _total(masks: Sequence[Mask]) -> int:
    return sum(int(mask.sum()) for mask in masks)
