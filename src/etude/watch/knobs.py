"""Knobs: change a weight, a bias, a neuron, a head or any activation, and see what the network then predicts.

A knob is plain text, so that it can be shared, typed and stored::

    model.layers.0.mlp.down_proj.weight[3,5]=0.25      set a weight
    model.layers.0.mlp.gate_proj.bias[17]+0.5          raise a bias
    model.layers.0.mlp.post[17]*0                      silence a neuron at every position
    model.layers.1.self_attn.z[2]*0.5                  halve a head
    model.layers.1.resid_post[4]@3=1.5                 set one number of the residual stream, at position 3 only

Nothing on disk changes, and neither does the network: parameters change in a copy.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.errors import InputError
from etude.messages import suggest_name
from etude.model.language_model import LOGITS, LanguageModel
from etude.model.taps import Change, Taps
from etude.untrusted import shown
from etude.watch.prompts import Passage, Prompt, look
from etude.watch.tapped_forward import activation_names, run_with_taps

_FORM = re.compile(
    r"(?P<name>[A-Za-z_][\w.]*)(?:\[(?P<index>\d+(?:\s*,\s*\d+)*)\])?(?:@(?P<position>\d+))?\s*(?P<how>[=*+])\s*"
    r"(?P<value>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)"
)
_UNIT_AXIS = {"q": 2, "k": 2, "v": 2, "rot_q": 2, "rot_k": 2, "z": 2, "scores": 1, "pattern": 1}
"""The axis of the heads; the unit of every other activation is on its last axis."""


@dataclass(frozen=True)
class Knob:
    """A change of a parameter or an activation called ``name``: ``how`` sets (=), scales (*) or shifts (+) it.

    ``index`` is the index into a parameter, or the unit (neuron, head, number of the stream) of an activation; without
    it everything changes. ``position`` applies to activations only.
    """

    name: str
    how: Literal["=", "*", "+"]
    value: float
    index: tuple[int, ...] = ()
    position: int | None = None

    def __str__(self) -> str:
        index = f"[{','.join(map(str, self.index))}]" if self.index else ""
        position = "" if self.position is None else f"@{self.position}"
        return f"{self.name}{index}{position}{self.how}{self.value:g}"

    def turned(self, values: Tensor) -> Tensor:
        """Return the changed ``values``."""
        if self.how == "=":
            return torch.full_like(values, self.value)
        return values * self.value if self.how == "*" else values + self.value


def parse_knob(text: str) -> Knob:
    """Return the knob that ``text`` describes.

    Raises:
        InputError: it describes none.
    """
    match = _FORM.fullmatch(text.strip())
    if match is None or not isfinite(float(match["value"])):
        raise InputError(
            f"'{shown(text)}' is no knob: write NAME[INDEX]=VALUE, *FACTOR or +AMOUNT, such as "
            "model.layers.0.mlp.post[17]*0"
        )
    index = tuple(int(number) for number in match["index"].split(",")) if match["index"] else ()
    position = int(match["position"]) if match["position"] else None
    how: Literal["=", "*", "+"] = match["how"]  # type: ignore[assignment]
    return Knob(match["name"], how, float(match["value"]), index, position)


@dataclass(frozen=True, eq=False)
class Turned:
    """A network with knobs turned: ``model`` has the changed parameters; ``changes`` apply during a forward pass.

    ``parameters`` are the changed ones by name, for a fork.
    """

    model: LanguageModel
    changes: Mapping[str, Change]
    parameters: Mapping[str, Tensor]


@torch.no_grad()
def turn(model: LanguageModel, knobs: Sequence[Knob], patches: Mapping[str, Tensor] | None = None) -> Turned:
    """Return ``model`` with ``knobs`` turned; ``model`` itself does not change.

    Args:
        patches: activations to replace as a whole, for example by those of another text of the same shape.

    Raises:
        InputError: a knob names nothing in this network.
    """
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    activations = activation_names(model)
    changed: dict[str, Tensor] = {}
    by_activation: dict[str, list[Knob]] = {}
    for knob in knobs:
        if knob.name in shapes:
            changed[knob.name] = _turned_parameter(
                knob, changed.get(knob.name, model.get_parameter(knob.name))
            )
        elif knob.name in activations:
            by_activation.setdefault(knob.name, []).append(knob)
        else:
            suggestion = suggest_name(knob.name, [*shapes, *activations])
            raise InputError(f"no parameter or activation is called '{knob.name}': {suggestion}")
    copied = model
    if changed:
        # Copy only the changed parameters: deepcopy shares what its memo already holds.
        shared = {id(p): p for name, p in model.named_parameters() if name not in changed}
        copied = copy.deepcopy(model, shared)
        for name, value in changed.items():
            copied.get_parameter(name).copy_(value)
    changes: dict[str, Change] = {
        name: _change_by(knobs_of_one) for name, knobs_of_one in by_activation.items()
    }
    for name, value in (patches or {}).items():
        if name not in activations:
            raise InputError(f"no activation is called '{name}': {suggest_name(name, activations)}")
        changes[name] = _patch(name, value, changes.get(name))
    return Turned(copied, changes, changed)


@dataclass(frozen=True, eq=False)
class Comparison:
    """A text read by the network unchanged and with knobs turned.

    Attributes:
        before, after: (T, V) natural log-probabilities of the next token at every position.
    """

    prompt: Prompt = field(repr=False)
    knobs: tuple[Knob, ...]
    before: Float[Tensor, "T V"]
    after: Float[Tensor, "T V"]

    @property
    def divergence(self) -> Float[Tensor, " T"]:
        """KL divergence of the changed from the unchanged prediction at each position, nats."""
        return (self.before.exp() * (self.before - self.after)).sum(-1)

    @property
    def losses(self) -> tuple[Float[Tensor, " U"], Float[Tensor, " U"]]:
        """(T - 1,) loss of each token but the first, before and after, nats."""
        index = self.prompt.ids[1:, None].to(self.before.device)
        before, after = (-values[:-1].gather(-1, index)[:, 0] for values in (self.before, self.after))
        return before, after

    def top(self, position: int = -1, count: int = 5) -> list[tuple[str, float, float]]:
        """Return (token, probability before, after) of the most likely tokens, by the larger of the two."""
        before, after = self.before[position].exp(), self.after[position].exp()
        order = torch.maximum(before, after).argsort(descending=True, stable=True)[:count].tolist()
        return [(self.prompt.decode(token), float(before[token]), float(after[token])) for token in order]

    def __repr__(self) -> str:
        lines = ["turned: " + "; ".join(map(str, self.knobs))]
        lines += [self.prompt.where] if self.prompt.where else []
        if len(self.prompt.ids) > 1:
            before, after = (float(values.mean()) for values in self.losses)
            lines.append(f"loss {before:.4f} -> {after:.4f} nats per token")
        lines.append(
            f"after {self.prompt.tokens[-1]!r} (KL divergence {float(self.divergence[-1]):.3g} nats):"
        )
        lines += [f"{text!r:>14} {b:7.2%} -> {a:7.2%}" for text, b, a in self.top()]
        return "\n".join(lines)


@torch.no_grad()
def compare(
    model: LanguageModel,
    tokenizer: EtudeTokenizer,
    passage: Passage,
    knobs: Sequence[Knob | str],
    patches: Mapping[str, Tensor] | None = None,
    where: str = "",
) -> Comparison:
    """Return what a text, or tokens, are predicted to continue with, unchanged and with ``knobs`` turned.

    Raises:
        InputError: a knob names nothing in this network, or the text is too long for it.
    """
    prompt = look(model, tokenizer, passage, where)
    parsed = tuple(parse_knob(knob) if isinstance(knob, str) else knob for knob in knobs)
    turned = turn(model, parsed, patches)
    for knob in parsed:
        if knob.position is not None and knob.position >= len(prompt.ids):
            raise InputError(f"'{knob}' has a position beyond the {len(prompt.ids)} tokens of this text")
    taps = Taps(lambda name: name == LOGITS, changes=turned.changes)
    after = run_with_taps(turned.model, prompt.ids[None], taps=taps)[LOGITS][0]
    before = prompt.activation(LOGITS)[0]
    if not after.isfinite().all() and before.isfinite().all():
        raise InputError(f"'{parsed[-1]}' makes the predictions not finite: turn it less")
    return Comparison(prompt, parsed, before.double().log_softmax(-1), after.double().log_softmax(-1))


def _turned_parameter(knob: Knob, parameter: Tensor) -> Tensor:
    shape = tuple(parameter.shape)
    if knob.position is not None:
        raise InputError(f"'{knob}' has a position, and a parameter has none: omit @{knob.position}")
    fits = len(knob.index) <= len(shape) and all(
        place < size for place, size in zip(knob.index, shape, strict=False)
    )
    if not fits:
        raise InputError(f"'{knob}' is outside {knob.name}, whose shape is {shape} (indices start at 0)")
    result = parameter.detach().clone()
    result[knob.index] = knob.turned(result[knob.index])
    if not result.isfinite().all():
        raise InputError(f"'{knob}' makes numbers of {knob.name} not finite: turn it less")
    return result


def _change_by(knobs: Sequence[Knob]) -> Change:
    leaf = knobs[0].name.rsplit(".", 1)[-1]
    causal = leaf in ("scores", "pattern")  # a knob must not uncover later positions

    def change(values: Tensor) -> Tensor:
        result = values.clone()
        for knob in knobs:
            axis = _UNIT_AXIS.get(leaf, result.ndim - 1)
            if len(knob.index) > 1 or (knob.index and knob.index[0] >= result.shape[axis]):
                raise InputError(
                    f"'{knob}' names no unit: {knob.name} has units 0 to {result.shape[axis] - 1}"
                )
            place: list[int | slice] = [slice(None)] * result.ndim
            if knob.index:
                place[axis] = knob.index[0]
            if knob.position is not None:
                place[2 if axis == 1 else 1] = (
                    knob.position
                )  # for scores and patterns, the position of the query
            result[tuple(place)] = knob.turned(result[tuple(place)])
        if causal:
            hidden = torch.ones(values.shape[-2:], dtype=torch.bool, device=values.device).triu(1)
            result = torch.where(hidden, values, result)
        return result

    return change


def _patch(name: str, value: Tensor, then: Change | None) -> Change:
    def change(values: Tensor) -> Tensor:
        if values.shape != value.shape:
            raise InputError(f"{name} has shape {tuple(values.shape)}, and the patch {tuple(value.shape)}")
        patched = value.to(values)
        return patched if then is None else then(patched)

    return change
