"""The tables and plain values of ``etude inspect``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from rich.table import Table

from etude.data.tokens.coverage import IGNORE_INDEX
from etude.watch.activity import NodeHistory
from etude.watch.arithmetic import WeightStep
from etude.watch.forward import LOGITS, layers_of
from etude.watch.knobs import Comparison
from etude.watch.node_in_text import NodeInText
from etude.watch.one_node import Node
from etude.watch.opened import OpenedRow, OpenedStep
from etude.watch.prompts import Prompt, induction_scores
from etude.watch.proof import Proof
from etude.watch.reconciliation import Reconciliation
from etude.watch.terms import NodeSum, WeightedSum
from etude.watch.update import ParameterUpdate
from etude.workflow.inspect_pictures import Picture

Decode = Callable[[Sequence[int]], str]
SHOWN_TOKENS = 16
GUESSES = 8


def proof_values(proof: Proof) -> dict[str, Any]:
    return {
        "holds": proof.holds,
        "from_step": proof.from_step,
        "steps_compared": len(proof.compared),
        "checksums_equal": proof.checksums,
        "largest_loss_difference": proof.largest_loss_difference,
        "largest_norm_difference": proof.largest_norm_difference,
        "other_machine": list(proof.other_machine),
        "text": str(proof),
    }


def parameter_values(opened: OpenedStep) -> list[dict[str, Any]]:
    """Norms of every tensor and what moved it."""
    found = []
    for name in opened.gradients:
        moved = opened.parameter(name)
        weight, update = float(moved.before.norm()), float(moved.update.norm())
        found.append(
            {
                "name": name,
                "shape": list(moved.before.shape),
                "rule": moved.used.rule,
                "lr": moved.used.lr,
                "weight_decay": moved.used.weight_decay,
                "weight_norm": weight,
                "grad_norm": float(moved.gradient.norm()),
                "update_norm": update,
                "update_ratio": update / weight if weight else None,
            }
        )
    return found


def parameter_table(opened: OpenedStep) -> Table:
    table = _table("parameter", "rule", "lr", "|weight|", "|gradient|", "|update|", "update / weight")
    for one in parameter_values(opened):
        ratio = "" if one["update_ratio"] is None else f"{one['update_ratio']:.1e}"
        numbers = [f"{one[key]:.3g}" for key in ("lr", "weight_norm", "grad_norm", "update_norm")]
        table.add_row(one["name"], one["rule"], *numbers, ratio)
    return table


def row_values(row: OpenedRow, decode: Decode) -> list[dict[str, Any]]:
    """Every token of a row: what was read, predicted, desired."""
    probabilities = row.probabilities
    best, chosen = probabilities.max(-1)
    found = []
    for place, (read, wanted) in enumerate(zip(row.inputs.tolist(), row.targets.tolist(), strict=True)):
        real = wanted != IGNORE_INDEX
        found.append(
            {
                "position": place,
                "read": decode([read]),
                "likeliest": decode([int(chosen[place])]),
                "likeliest_probability": float(best[place]),
                "desired": decode([wanted]) if real else None,
                "desired_probability": float(probabilities[place, wanted]) if real else None,
                "loss": float(row.losses[place]),
            }
        )
    return found


def row_table(row: OpenedRow, decode: Decode) -> Table:
    table = _table("position", "read", "likeliest", "with", "desired", "with", "loss", text=(1, 2, 4))
    values = row_values(row, decode)
    for one in values[:SHOWN_TOKENS]:
        desired = "" if one["desired"] is None else f"{one['desired']!r}"
        with_it = "" if one["desired_probability"] is None else f"{one['desired_probability']:.2%}"
        table.add_row(
            str(one["position"]),
            f"{one['read']!r}",
            f"{one['likeliest']!r}",
            f"{one['likeliest_probability']:.2%}",
            desired,
            with_it,
            f"{one['loss']:.4f}",
        )
    table.title = (
        f"row {row.row} of the batch, its first {min(len(values), SHOWN_TOKENS)} tokens of {len(values)}"
    )
    return table


def check_table(found: Reconciliation) -> Table:
    table = _table("check", "difference", "allowed", "", "largest in", text=(0, 3, 4))
    for check in found.checks:
        state = "ok" if check.holds else "DIFFERS"
        table.add_row(check.name, f"{check.difference:.1e}", f"{check.tolerance:.1e}", state, check.where)
    return table


def token_values(opened: OpenedStep, row: OpenedRow, position: int, decode: Decode) -> dict[str, Any]:
    """One prediction, the token that came, and how long signal and error are on the way."""
    probabilities, wanted = row.probabilities[position], int(row.targets[position])
    order = probabilities.argsort(descending=True, stable=True).tolist()
    desired = None if wanted == IGNORE_INDEX else wanted
    error = row.gradients[LOGITS][0, position] * opened.num_targets
    stream = []
    names = [name for _, name in layers_of(list(row.activations), "resid_pre")]
    names += [name for _, name in layers_of(list(row.activations), "resid_post")][-1:]
    for name in names or [name for name in row.activations if name != LOGITS]:
        value, gradient = row.activations[name][0, position], row.gradients[name][0, position]
        stream.append({"name": name, "norm": float(value.norm()), "grad_norm": float(gradient.norm())})
    return {
        "step": opened.step,
        "row": row.row,
        "position": position,
        "context": decode(row.inputs[max(0, position - 11) : position + 1].tolist()),
        "desired": None if desired is None else decode([desired]),
        "probability": 0.0 if desired is None else float(probabilities[desired]),
        "rank": 0 if desired is None else order.index(desired) + 1,
        "vocabulary": len(order),
        "loss": float(row.losses[position]),
        "guesses": [
            {
                "token": decode([token]),
                "probability": float(probabilities[token]),
                "desired": float(token == desired),
                "error": float(error[token]),
            }
            for token in dict.fromkeys([*order[:GUESSES], *([] if desired is None else [desired])])
        ],
        "stream": stream,
        "proof": proof_values(opened.proof),
    }


def guess_table(guesses: Sequence[dict[str, Any]]) -> Table:
    table = _table("token", "predicted", "desired", "error (predicted - desired)")
    for one in guesses:
        table.add_row(
            f"{one['token']!r}", f"{one['probability']:.4%}", f"{one['desired']:.0f}", f"{one['error']:+.6f}"
        )
    return table


def stream_table(stream: Sequence[dict[str, Any]]) -> Table:
    table = _table("on the way", "signal, length", "error that came back, length")
    for one in stream:
        table.add_row(one["name"], f"{one['norm']:.4g}", f"{one['grad_norm']:.4g}")
    return table


def node_values(node: Node, arithmetic: NodeSum, history: NodeHistory) -> dict[str, Any]:
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
        "promoted": [{"token": one.text, "value": one.value} for one in node.promoted],
        "suppressed": [{"token": one.text, "value": one.value} for one in node.suppressed],
        "most": [vars(one) | {"token_ids": list(one.token_ids)} for one in node.most],
        "least": [vars(one) | {"token_ids": list(one.token_ids)} for one in node.least],
        "share_active": node.activity.share_active,
        "dead": node.activity.dead,
        "arithmetic": _arithmetic_values(arithmetic),
        "history": [vars(moment) for moment in history.moments],
        "came_alive": history.came_alive,
        "died": history.died,
        "proof": proof_values(node.proof),
    }


def node_in_text_values(node: NodeInText, summed: NodeSum) -> dict[str, Any]:
    return {
        "layer": node.wiring.layer,
        "unit": node.unit,
        "tokens": list(node.prompt.tokens),
        "activation": node.post.tolist(),
        "promoted": [{"token": one.text, "value": one.value} for one in node.promoted],
        "suppressed": [{"token": one.text, "value": one.value} for one in node.suppressed],
        "position": node.strongest,
        "arithmetic": _arithmetic_values(summed),
    }


def _arithmetic_values(summed: NodeSum) -> dict[str, Any]:
    return {
        "gate": _sum_values(summed.gate),
        "up": None if summed.up is None else _sum_values(summed.up),
        "function": summed.function,
        "activation": summed.post,
        "difference": summed.difference,
    }


def weight_values(one: WeightStep) -> dict[str, Any]:
    return {
        "step": one.step,
        "before": one.before,
        "gradient": one.gradient,
        "clip_factor": one.clip_factor,
        "state_before": dict(one.state_before),
        "state_after": dict(one.state_after),
        "rule": one.used.rule,
        "lr": one.used.lr,
        "decay": one.decay,
        "direction": one.direction,
        "update": one.update,
        "after": one.after,
        "by_the_rule": one.by_the_rule,
        "difference": one.difference,
        "proof": one.proof,
    }


def prompt_values(prompt: Prompt) -> dict[str, Any]:
    """Everything that is shown of a prompt, and the attention patterns."""
    attribution, parts = prompt.attribution(), prompt.contributions()
    values: dict[str, Any] = {
        "where": prompt.where,
        "tokens": list(prompt.tokens),
        "ids": prompt.ids.tolist(),
        "losses": prompt.losses.tolist(),
        "guesses": [vars(guess) for guess in prompt.guesses(count=GUESSES)],
        "attribution": {
            "token": attribution.text,
            "logit": attribution.logit,
            "gradient_times_input": attribution.gradient_times_input.tolist(),
            "ablation": attribution.ablation.tolist(),
        },
        "contributions": {"terms": parts.terms, "logit": parts.logit, "unexplained": parts.unexplained},
    }
    if prompt.has_attention:
        scores, chance = induction_scores(prompt.model)
        layers = range(prompt.model.config.num_hidden_layers)
        values["lens"] = prompt.logit_lens().of_desired.tensor.tolist()
        values["patterns"] = [prompt.pattern(layer).tensor.tolist() for layer in layers]
        values["induction"] = {"scores": scores.tensor.tolist(), "chance": chance}
    return values


def induction_line(induction: dict[str, Any]) -> str:
    scores = torch.tensor(induction["scores"])
    layer, head = divmod(int(scores.argmax()), scores.shape[1])
    return (
        f"induction: layer {layer}, head {head} looks back most, {float(scores.max()):.1%} of its attention to what "
        f"came after the same token before (chance {induction['chance']:.1%})"
    )


def comparison_values(compared: Comparison) -> dict[str, Any]:
    before, after = compared.losses
    return {
        "where": compared.prompt.where,
        "tokens": list(compared.prompt.tokens),
        "knobs": [str(knob) for knob in compared.knobs],
        "losses_before": before.tolist(),
        "losses_after": after.tolist(),
        "divergence": compared.divergence.tolist(),
        "next": [
            {"token": text, "before": was, "after": now} for text, was, now in compared.top(count=GUESSES)
        ],
    }


def step_pictures(opened: OpenedStep, row: OpenedRow) -> list[Picture]:
    """The nodes of every layer along the first row, and the error at them."""
    names = [name for name in row.activations if name.endswith((".post", ".resid_post"))]
    found = []
    for name in names:
        found.append(Picture(name, row.activations[name][0].T, "position", "unit", signed=True))
        found.append(Picture(f"{name}.grad", row.gradients[name][0].T, "position", "unit", signed=True))
    return found


def node_pictures(node: Node) -> list[Picture]:
    """Where it is active in the sample of held-out text."""
    post = torch.from_numpy(node.activity.post[:24])
    name = f"{node.layer}.post[{node.unit}] on held-out text"
    return [Picture(name, post, "position", "passage", signed=True)]


def weight_pictures(moved: ParameterUpdate, index: Sequence[int]) -> list[Picture]:
    """The matrix that it is in, its gradient and update, and a mark where it is."""
    at = (index[0], index[1]) if len(index) > 1 else (0, index[0])
    parts = {"": moved.before, ".grad": moved.gradient, ".update": moved.update}
    return [
        Picture(f"{moved.name}{leaf}", value if value.ndim > 1 else value[None], "input", "unit", True, at)
        for leaf, value in parts.items()
    ]


def prompt_pictures(prompt: Prompt) -> list[Picture]:
    """The pattern of every head."""
    if not prompt.has_attention:
        name = "model.post"
        return [Picture(name, prompt.activation(name)[0].T, "position", "unit", signed=True)]
    return [
        Picture(f"layer {layer} head {head}", pattern, "key", "query", signed=False, labels=prompt.tokens)
        for layer in range(prompt.model.config.num_hidden_layers)
        for head, pattern in enumerate(prompt.pattern(layer).tensor)
    ]


def _sum_values(found: WeightedSum) -> dict[str, Any]:
    columns = (found.inputs, found.weights, found.terms)
    return {
        "terms": [
            dict(zip(("input", "value", "weight", "term"), (i, *(float(c[i]) for c in columns)), strict=True))
            for i in found.order.tolist()
        ],
        "bias": found.bias,
        "sum": found.total,
        "forward_pass": found.seen,
    }


def _table(*columns: str, text: Sequence[int] = (0,)) -> Table:
    table = Table(box=None, pad_edge=False, title_justify="left")
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place in text else "right", overflow="fold")
    return table
