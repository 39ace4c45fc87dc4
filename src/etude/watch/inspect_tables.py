"""The tables and pictures of ``etude inspect``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from rich.table import Table

from etude.train.rules.applied import ParameterUpdate
from etude.watch.inspect_pictures import Picture
from etude.watch.kinds_of_heads import chosen_heads, kinds_of_heads
from etude.watch.one_node import Node
from etude.watch.opened_step import OpenedRow, OpenedStep
from etude.watch.prompts import Prompt
from etude.watch.reconciliation import Reconciliation
from etude.watch.step_types import GuessInStep, StreamAtToken
from etude.watch.text_types import InductionAnswer
from etude.watch.values import Decode, parameter_values, row_values

SHOWN_TOKENS = 16
MOST_HEADS = 24
"""Heads in a picture."""


def parameter_table(opened: OpenedStep) -> Table:
    """Return a table of every parameter: its update rule, learning rate and norms."""
    table = _table("parameter", "rule", "lr", "|weight|", "|gradient|", "|update|", "update / weight")
    for values in parameter_values(opened):
        ratio = "" if values["update_ratio"] is None else f"{values['update_ratio']:.1e}"
        numbers = [f"{values[key]:.3g}" for key in ("lr", "weight_norm", "grad_norm", "update_norm")]
        table.add_row(values["name"], values["rule"], *numbers, ratio)
    return table


def row_table(row: OpenedRow, decode: Decode) -> Table:
    """Return a table of the first tokens of a row: read, predicted, desired, and the loss."""
    table = _table("position", "read", "predicted", "with", "desired", "with", "loss", text=(1, 2, 4))
    values = row_values(row, decode)
    for token in values[:SHOWN_TOKENS]:
        desired = "" if token["desired"] is None else f"{token['desired']!r}"
        probability = "" if token["desired_probability"] is None else f"{token['desired_probability']:.2%}"
        table.add_row(
            str(token["position"]),
            f"{token['read']!r}",
            f"{token['likeliest']!r}",
            f"{token['likeliest_probability']:.2%}",
            desired,
            probability,
            f"{token['loss']:.4f}",
        )
    table.title = f"row {row.row} of the batch, tokens 1 to {min(len(values), SHOWN_TOKENS)} of {len(values)}"
    return table


def check_table(reconciliation: Reconciliation) -> Table:
    """Return a table of the checks of a step against float64."""
    table = _table("check", "difference", "allowed", "", "largest in", text=(0, 3, 4))
    for check in reconciliation.checks:
        state = "ok" if check.holds else "DIFFERS"
        table.add_row(check.name, f"{check.difference:.1e}", f"{check.tolerance:.1e}", state, check.where)
    return table


def guess_table(guesses: Sequence[GuessInStep]) -> Table:
    """Return a table of the most likely tokens, with predicted and desired probability."""
    table = _table("token", "predicted", "desired", "error (predicted - desired)")
    for guess in guesses:
        table.add_row(
            f"{guess['token']!r}",
            f"{guess['probability']:.4%}",
            f"{guess['desired']:.0f}",
            f"{guess['error']:+.6f}",
        )
    return table


def stream_table(stream: Sequence[StreamAtToken]) -> Table:
    """Return a table of the norms of the residual stream and of its gradient, layer by layer."""
    table = _table("activation", "norm", "norm of its gradient")
    for activation in stream:
        table.add_row(activation["name"], f"{activation['norm']:.4g}", f"{activation['grad_norm']:.4g}")
    return table


def induction_line(induction: InductionAnswer) -> str:
    """Return a line on the head with the highest induction score."""
    scores = torch.tensor(induction["scores"])
    layer, head = divmod(int(scores.argmax()), scores.shape[1])
    return (
        f"induction: strongest in layer {layer}, head {head}, with {float(scores.max()):.1%} of its attention on the "
        f"token after the previous occurrence (chance {induction['chance']:.1%})"
    )


def step_pictures(opened: OpenedStep, row: OpenedRow) -> list[Picture]:
    """Return the neurons of every layer along the first row, and the gradient at them."""
    names = [name for name in row.activations if name.endswith((".post", ".resid_post"))]
    pictures = []
    for name in names:
        pictures.append(Picture(name, row.activations[name][0].T, "position", "unit", signed=True))
        pictures.append(Picture(f"{name}.grad", row.gradients[name][0].T, "position", "unit", signed=True))
    return pictures


def node_pictures(node: Node) -> list[Picture]:
    """Return a neuron's activation over the sample of held-out text."""
    post = torch.from_numpy(node.activity.post[:24])
    name = f"{node.layer}.post[{node.unit}] on held-out text"
    return [Picture(name, post, "position", "passage", signed=True)]


def weight_pictures(moved: ParameterUpdate, index: Sequence[int]) -> list[Picture]:
    """Return the matrix of a weight, its gradient and its update, each with a mark at the weight."""
    at = (index[0], index[1]) if len(index) > 1 else (0, index[0])
    parts = {"": moved.before, ".grad": moved.gradient, ".update": moved.update}
    return [
        Picture(f"{moved.name}{leaf}", value if value.ndim > 1 else value[None], "input", "unit", True, at)
        for leaf, value in parts.items()
    ]


def prompt_pictures(prompt: Prompt, induction: InductionAnswer | None = None) -> list[Picture]:
    """Return the attention patterns of heads of each kind; in the mlp family the neurons along the text."""
    if not prompt.has_attention:
        name = "model.post"
        return [Picture(name, prompt.activation(name)[0].T, "position", "unit", signed=True)]
    heads = kinds_of_heads(prompt)
    if not heads:  # a single token, which looks at itself
        patterns = enumerate(prompt.patterns()[0].tensor)
        return [Picture(f"layer 0 head {head}", values, "key", "query", False) for head, values in patterns]
    scores = None if induction is None else induction["scores"]
    chosen = chosen_heads(heads, MOST_HEADS, scores)
    about = str(chosen)
    return [
        Picture(
            f"layer {layer} head {head}: {chosen.kinds[layer, head]}",
            prompt.pattern(layer).tensor[head],
            "key",
            "query",
            signed=False,
            labels=prompt.tokens,
            about=about,
        )
        for layer, head in chosen.places
    ]


def _table(*columns: str, text: Sequence[int] = (0,)) -> Table:
    table = Table(box=None, pad_edge=False, title_justify="left")
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place in text else "right", overflow="fold")
    return table
