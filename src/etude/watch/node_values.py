"""A neuron as plain values: what ``etude inspect --json`` prints and the studio's page draws of it."""

from __future__ import annotations

from collections.abc import Sequence

from etude.watch import text_types
from etude.watch.activity import Moment, NodeHistory
from etude.watch.node_in_text import NodeInText
from etude.watch.one_node import Node, TokenEffect
from etude.watch.passages import Passage
from etude.watch.terms import NodeSum
from etude.watch.values import arithmetic_values, proof_values


def node_values(node: Node, arithmetic: NodeSum, history: NodeHistory) -> text_types.NodeAnswer:
    gradient = node.gradient if node.step < node.machine.recorded.last_step else None
    return {
        "step": node.step,
        "layer": node.layer,
        "unit": node.unit,
        "weights": node.weights.tolist(),
        "bias": node.bias,
        "up_weights": None if node.up_weights is None else node.up_weights.tolist(),
        "up_bias": node.up_bias,
        "outgoing": node.outgoing.tolist(),
        "gradient": None
        if gradient is None
        else {
            "weights": gradient.weights.tolist(),
            "bias": gradient.bias,
            "outgoing": gradient.outgoing.tolist(),
        },
        "promoted": _effects(node.promoted),
        "suppressed": _effects(node.suppressed),
        "most": [_passage_values(passage) for passage in node.most],
        "least": [_passage_values(passage) for passage in node.least],
        "share_active": node.activity.share_active,
        "dead": node.activity.dead,
        "arithmetic": arithmetic_values(arithmetic),
        "history": [_moment_values(moment) for moment in history.moments],
        "came_alive": history.came_alive,
        "died": history.died,
        "proof": proof_values(node.proof),
    }


def _effects(effects: Sequence[TokenEffect]) -> list[text_types.TokenEffect]:
    return [{"token": effect.text, "value": effect.value} for effect in effects]


def _passage_values(passage: Passage) -> text_types.Passage:
    return {
        "value": passage.value,
        "before": passage.before,
        "token": passage.token,
        "after": passage.after,
        "place": passage.place,
        "document": passage.document,
        "token_ids": list(passage.token_ids),
    }


def _moment_values(moment: Moment) -> text_types.Moment:
    return {
        "step": moment.step,
        "mean": moment.mean,
        "std": moment.std,
        "max": moment.max,
        "share_active": moment.share_active,
        "norm_in": moment.norm_in,
        "norm_up": moment.norm_up,
        "norm_out": moment.norm_out,
    }


def node_in_text_values(node: NodeInText, summed: NodeSum) -> text_types.NodeInTextAnswer:
    return {
        "layer": node.node_layer.path,
        "unit": node.unit,
        "tokens": list(node.prompt.tokens),
        "activation": node.post.tolist(),
        "promoted": _effects(node.promoted),
        "suppressed": _effects(node.suppressed),
        "position": node.strongest,
        "arithmetic": arithmetic_values(summed),
    }
