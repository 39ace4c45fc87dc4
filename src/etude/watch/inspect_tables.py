"""The tables and pictures of ``etude inspect``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from rich.table import Table

from etude.train.rules.applied import ParameterUpdate
from etude.watch.inspect_pictures import Picture
from etude.watch.one_node import Node
from etude.watch.opened_step import OpenedRow, OpenedStep
from etude.watch.prompts import Prompt
from etude.watch.reconciliation import Reconciliation
from etude.watch.step_types import GuessInStep, StreamAtToken
from etude.watch.text_types import InductionAnswer
from etude.watch.values import Decode, parameter_values, row_values

SHOWN_TOKENS = 16


def parameter_table(opened: OpenedStep) -> Table:
    table = _table("parameter", "rule", "lr", "|weight|", "|gradient|", "|update|", "update / weight")
    for one in parameter_values(opened):
        ratio = "" if one["update_ratio"] is None else f"{one['update_ratio']:.1e}"
        numbers = [f"{one[key]:.3g}" for key in ("lr", "weight_norm", "grad_norm", "update_norm")]
        table.add_row(one["name"], one["rule"], *numbers, ratio)
    return table


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


def guess_table(guesses: Sequence[GuessInStep]) -> Table:
    table = _table("token", "predicted", "desired", "error (predicted - desired)")
    for one in guesses:
        table.add_row(
            f"{one['token']!r}", f"{one['probability']:.4%}", f"{one['desired']:.0f}", f"{one['error']:+.6f}"
        )
    return table


def stream_table(stream: Sequence[StreamAtToken]) -> Table:
    table = _table("on the way", "signal, length", "error that came back, length")
    for one in stream:
        table.add_row(one["name"], f"{one['norm']:.4g}", f"{one['grad_norm']:.4g}")
    return table


def induction_line(induction: InductionAnswer) -> str:
    scores = torch.tensor(induction["scores"])
    layer, head = divmod(int(scores.argmax()), scores.shape[1])
    return (
        f"induction: layer {layer}, head {head} looks back most, {float(scores.max()):.1%} of its attention to what "
        f"came after the same token before (chance {induction['chance']:.1%})"
    )


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


def _table(*columns: str, text: Sequence[int] = (0,)) -> Table:
    table = Table(box=None, pad_edge=False, title_justify="left")
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place in text else "right", overflow="fold")
    return table
