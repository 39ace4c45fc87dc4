"""``etude inspect``: print each view as tables, or as JSON for programs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from etude.errors import InputError
from etude.files import json_safe
from etude.messages import command
from etude.pretrained.load_model import load_trained
from etude.pretrained.resolve_source import model_folder
from etude.run import RunFolder
from etude.train.objectives.preference import PREFERENCE
from etude.train.objectives.reward import REWARD
from etude.untrusted import shown
from etude.watch import api
from etude.watch import inspect_tables as tables
from etude.watch import values as values_of
from etude.watch.arithmetic import weight_step
from etude.watch.in_model import node_in_model, weight_in_model
from etude.watch.inspect_pictures import Picture, draw
from etude.watch.kinds_of_heads import kinds_of_heads, sinks_line
from etude.watch.layer_in_step import LayerInStep
from etude.watch.node_in_text import look_at_node_in_text
from etude.watch.node_values import node_in_text_values, node_values
from etude.watch.one_node import Node
from etude.watch.one_weight import WeightHistory
from etude.watch.opened_step import OpenedStep, open_step

Theme = Literal["light", "dark"]


@dataclass(frozen=True)
class Question:
    """What to look at; ``step`` is the run's last by default."""

    path: Path
    step: int | None = None
    node: str | None = None
    weight: str | None = None
    token: str | None = None
    prompt: str | None = None
    knobs: tuple[str, ...] = ()
    fork: str | None = None

    @property
    def is_run(self) -> bool:
        return (self.path / "run.toml").is_file()


@dataclass(frozen=True)
class Look:
    """An answer: lines and tables to print, the same as plain values, and its pictures."""

    parts: Sequence[str | Table]
    values: Mapping[str, object]
    pictures: Callable[[], Sequence[Picture]] = field(default=lambda: ())


def show(question: Question, console: Console, *, as_json: bool, png: Path | None, theme: Theme) -> None:
    """Answer a question, and print or draw the answer.

    Raises:
        InputError: no such run, step, neuron, weight, row or text.
    """
    with console.status("replaying") if not as_json and console.is_terminal else nullcontext():
        look = look_at(question)
    if as_json:
        print(json.dumps(json_safe(look.values), ensure_ascii=False, allow_nan=False))
    else:
        for part in look.parts:
            console.print(part, markup=False, highlight=False, soft_wrap=isinstance(part, str))
    if png is not None:
        draw(look.pictures(), png, theme)
        if not as_json:
            print(png)


def look_at(question: Question) -> Look:
    """Answer a question."""
    if question.fork is not None:
        return _forked(question)
    if question.prompt is not None:
        return _prompt(question, question.prompt)
    if not question.is_run and (question.weight is not None or question.node is not None):
        return _in_model(question)
    _require_run(question.path)
    machine = api.machine(question.path)
    step = machine.recorded.last_step if question.step is None else question.step
    if question.node is not None and question.token is not None:
        opened = api.replay(question.path, step)
        place = (*_place_of_node(question.node), *_place_of_token(question.token))
        return _node_at_token(opened, machine.data.tokenizer.decode, *place)
    if question.node is not None:
        layer, unit = _place_of_node(question.node)
        return _node(api.node(question.path, step, layer, unit))
    if question.weight is not None:
        name, index = _place_of_weight(question.weight)
        return _weight(api.weight(question.path, name, index), step)
    opened = api.replay(question.path, step)
    decode = machine.data.tokenizer.decode
    if question.token is not None:
        return _token(opened, decode, *_place_of_token(question.token))
    return _step(opened, decode)


SHARES = (
    "the loss belongs to pairs of answers: that of a token is its share, such that the shares add up to the loss and "
    "their gradients to its gradient"
)
SAMPLED = (
    "the answers were sampled with the weights before this step: the loss of a token is minus the advantage of its "
    "answer (times p / p when sampled, which is 1), so that more probable answers with an advantage lower it"
)


def _require_run(path: Path) -> None:
    """Raise InputError if ``path`` is a model without steps, or no model at all."""
    if not (path / "run.toml").is_file():
        model_folder(path)  # says what is wrong, if it is none
        raise InputError(f"{path} is a model and has no steps: inspect it with --prompt, --node or --weight")
    RunFolder.open(path)


def _in_model(question: Question) -> Look:
    """Look at a weight or a neuron of a model without steps."""
    if question.step is not None or question.token is not None:
        raise InputError(f"{question.path} is a model and has no steps: omit --step and --token")
    trained = load_trained(question.path)
    if question.weight is not None:
        weight = weight_in_model(trained.model, *_place_of_weight(question.weight))
        return Look([repr(weight)], asdict(weight))
    decode = trained.tokenizer.decode
    node = node_in_model(trained.model, lambda token: decode([token]), *_place_of_node(question.node or ""))
    return Look([repr(node)], asdict(node))


def _step(opened: OpenedStep, decode: values_of.Decode) -> Look:
    from etude.watch.reconciliation import reconcile

    reconciliation, row = reconcile(opened), opened.row(0)
    of_pairs = opened.settings.train.objective == PREFERENCE
    unit = "pair" if of_pairs else "token"
    head = (
        f"step {opened.step}: loss {opened.loss:.6f} nats per {unit}, gradient norm {opened.grad_norm:.6g}, "
        + ("not clipped" if opened.clip_factor == 1 else f"scaled by {opened.clip_factor:.4g} to clip it")
    )
    if not opened.applied:
        head = f"step {opened.step}: the loss or its gradient was not finite, so the step was skipped"
    values = {
        **values_of.step_values(opened, row, decode),
        "reconciled": [
            {"check": c.name, "difference": c.difference, "tolerance": c.tolerance, "holds": c.holds}
            for c in reconciliation.checks
        ],
    }
    parts: list[str | Table] = [
        head,
        str(opened.proof),
        *([SHARES] if of_pairs else [SAMPLED] if opened.settings.train.objective == REWARD else []),
        tables.row_table(row, decode),
        tables.parameter_table(opened),
    ]
    if reconciliation.checks:
        parts += ["does this explain the applied update? Largest relative differences from float64:"]
        parts += [tables.check_table(reconciliation)]
    return Look(parts, values, lambda: tables.step_pictures(opened, row))


def _token(opened: OpenedStep, decode: values_of.Decode, row: int, position: int) -> Look:
    values = values_of.token_values(opened, opened.row(row), position, decode)
    return Look(
        [
            f"step {opened.step}, row {row}, position {position}: after {values['context']!r}",
            f"desired {values['desired']!r}: predicted with {values['probability']:.4%} (rank {values['rank']:,} of "
            f"{values['vocabulary']:,}), loss {values['loss']:.4f} nats",
            tables.guess_table(values["guesses"]),
            tables.stream_table(values["stream"]),
            str(opened.proof),
        ],
        values,
    )


def _node(node: Node) -> Look:
    history = node.history()
    token_ids = node.most[0].token_ids if node.most else (0,)
    arithmetic = node.on_tokens(token_ids)
    parts: list[str | Table] = [
        repr(node),
        "",
        "where it is most active:",
        repr(arithmetic),
        "",
        repr(history),
    ]
    if node.step < node.machine.recorded.last_step:
        parts.insert(1, repr(node.gradient))
    return Look(parts, node_values(node, arithmetic, history), lambda: tables.node_pictures(node))


def _node_at_token(
    opened: OpenedStep, decode: values_of.Decode, layer: str, unit: int, row: int, position: int
) -> Look:
    layer_in_step = LayerInStep(opened, layer)
    values = values_of.unit_values(layer_in_step, unit, row, position, None, decode)
    terms, error = values["weight"]["pushes"], values["error"]
    parts: list[str | Table] = [
        f"step {opened.step}, row {row}, position {position}: {layer} neuron {unit}",
        repr(layer_in_step.sum(unit, row, position, values["read"])),
        f"gradient at its activation {error['at_activation']:+.6g} (gradient where it writes, times its outgoing "
        f"weights), times the slope {error['slope']:+.6g} = {error['at_sum']:+.6g} at its sum",
        f"{values['weight']['name']}[{unit},{values['weight']['input']}]: {terms['down_count']} tokens of the batch "
        f"push it down by {terms['down']:.4g}, {terms['up_count']} up by {-terms['up']:.4g}; their sum is the "
        f"gradient, {terms['total']:+.6g} (in the step: {terms['gradient']:+.6g})",
        str(opened.proof),
    ]
    return Look(parts, values)


def _weight(history: WeightHistory, step: int) -> Look:
    opened = open_step(history.machine, step)
    weight_at_step = weight_step(opened, history.name, history.index)
    values = {
        "name": history.name,
        "index": list(history.index),
        "values": {str(key): value for key, value in history.values.items()},
        "updates": [values_of.weight_values(weight_at) for weight_at in history.steps],
        "at": values_of.weight_values(weight_at_step),
    }
    return Look(
        [repr(history), "", repr(weight_at_step)],
        values,
        lambda: tables.weight_pictures(opened.parameter(history.name), history.index),
    )


def _prompt(question: Question, text: str) -> Look:
    step = question.step if question.is_run else None
    if question.step is not None and not question.is_run:
        raise InputError(f"{question.path} is a model and has no steps: omit --step")
    if question.knobs:
        if question.node is not None:
            raise InputError("--prompt takes --node or --knob, not both")
        compared = api.compare(question.path, text, question.knobs, step)
        return Look([repr(compared)], values_of.comparison_values(compared))
    prompt = api.prompt(question.path, text, step)
    if question.node is not None:
        neuron = look_at_node_in_text(prompt, *_place_of_node(question.node))
        summed = neuron.on(neuron.strongest)
        return Look([repr(neuron), "", repr(summed)], node_in_text_values(neuron, summed))
    attribution = prompt.attribution()
    parts: list[str | Table] = [
        repr(prompt),
        "",
        repr(attribution),
        "",
        repr(prompt.contributions()),
    ]
    of_text = values_of.prompt_values(prompt)
    values: dict[str, object] = {**of_text, "attribution": values_of.attribution_values(attribution)}
    if prompt.has_attention:
        values["patterns"] = [pattern.tensor.tolist() for pattern in prompt.patterns()]
        parts += ["", repr(prompt.logit_lens()), "", tables.induction_line(of_text["induction"])]
        if sinks := sinks_line(kinds_of_heads(prompt)):
            parts.append(sinks)
    return Look(parts, values, lambda: tables.prompt_pictures(prompt, of_text.get("induction")))


def _forked(question: Question) -> Look:
    _require_run(question.path)
    recorded = api.machine(question.path).recorded
    step = max(recorded.checkpoints, default=0) if question.step is None else question.step
    run = api.fork(question.path, step, question.knobs, question.fork)
    turned = "; ".join(question.knobs)
    resume = command("train", "--resume", run.path)
    line = f"{run.path} is at step {step} with {turned}: continue it with {resume}"
    return Look([line], {"run": str(run.path), "step": step, "turned": list(question.knobs)})


def _place_of_node(text: str) -> tuple[str, int]:
    layer, separator, unit = text.rpartition(":")
    if not separator or not unit.isdecimal() or not layer:
        raise InputError(f"a neuron is LAYER:UNIT, such as model.layers.2.mlp:17; got '{shown(text)}'")
    return (f"model.layers.{layer}.mlp" if layer.isdecimal() else layer), int(unit)


def _place_of_weight(text: str) -> tuple[str, tuple[int, ...]]:
    match = re.fullmatch(r"([\w.]+)\[(\d+(?:\s*,\s*\d+)*)\]", text.strip())
    if match is None:
        raise InputError(
            f"a weight is NAME[INDEX], such as 'model.layers.0.mlp.up_proj.weight[3,5]'; got '{shown(text)}'"
        )
    return match[1], tuple(int(number) for number in match[2].split(","))


def _place_of_token(text: str) -> tuple[int, int]:
    row, separator, position = text.partition(":")
    if not separator or not row.isdecimal() or not position.isdecimal():
        raise InputError(f"a token is ROW:POSITION, such as 0:12; got '{shown(text)}'")
    return int(row), int(position)
