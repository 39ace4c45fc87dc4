"""Knobs: a weight, a bias, a node, a head or any activation turned, and what the network then predicts.

A knob is plain text, so that it can be shared, typed and stored::

    model.layers.0.mlp.down_proj.weight[3,5]=0.25      a weight set
    model.layers.0.mlp.gate_proj.bias[17]+0.5          a bias raised
    model.layers.0.mlp.post[17]*0                      a node silenced, at every position
    model.layers.1.self_attn.z[2]*0.5                  a head halved
    model.layers.1.resid_post[4]@3=1.5                 one number of the residual stream, at position 3 only

Nothing on disk changes, and the network itself does not either: parameters are turned in a copy.
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
from etude.watch.forward import activation_names, run_opened
from etude.watch.prompts import Prompt, look

_FORM = re.compile(
    r"(?P<name>[A-Za-z_][\w.]*)(?:\[(?P<index>\d+(?:\s*,\s*\d+)*)\])?(?:@(?P<position>\d+))?\s*(?P<how>[=*+])\s*"
    r"(?P<value>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)"
)
_UNIT_AXIS = {"q": 2, "k": 2, "v": 2, "rot_q": 2, "rot_k": 2, "z": 2, "scores": 1, "pattern": 1}
"""Where the heads are; the unit of every other activation is on its last axis."""


@dataclass(frozen=True)
class Knob:
    """``name`` is a parameter's or an activation's; ``how`` sets (=), scales (*) or shifts (+) what it stands for.

    ``index`` is that of a parameter, or the unit (node, head, number of the stream) of an activation; without it all
    are turned. ``position`` is of an activation only.
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
        """What ``values`` become."""
        if self.how == "=":
            return torch.full_like(values, self.value)
        return values * self.value if self.how == "*" else values + self.value


def parse_knob(text: str) -> Knob:
    """The knob that ``text`` describes.

    Raises:
        InputError: it describes none.
    """
    match = _FORM.fullmatch(text.strip())
    if match is None or not isfinite(float(match["value"])):
        raise InputError(
            f"'{shown(text)}' turns nothing: write NAME[INDEX]=VALUE, *FACTOR or +AMOUNT, such as "
            "model.layers.0.mlp.post[17]*0"
        )
    index = tuple(int(number) for number in match["index"].split(",")) if match["index"] else ()
    position = int(match["position"]) if match["position"] else None
    how: Literal["=", "*", "+"] = match["how"]  # type: ignore[assignment]
    return Knob(match["name"], how, float(match["value"]), index, position)


@dataclass(frozen=True, eq=False)
class Turned:
    """A network with knobs turned: ``model`` has the changed parameters, ``changes`` act during a pass.

    ``parameters`` are the changed ones by name, for a fork.
    """

    model: LanguageModel
    changes: Mapping[str, Change]
    parameters: Mapping[str, Tensor]


@torch.no_grad()
def turn(model: LanguageModel, knobs: Sequence[Knob], patches: Mapping[str, Tensor] | None = None) -> Turned:
    """``model`` with ``knobs`` turned; it is left as it is.

    Args:
        patches: activations replaced as a whole, such as by those of another text (same shape).

    Raises:
        InputError: a knob is of nothing in this network.
    """
    known = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    activations = activation_names(model)
    changed: dict[str, Tensor] = {}
    acting: dict[str, list[Knob]] = {}
    for knob in knobs:
        if knob.name in known:
            changed[knob.name] = _turned_parameter(
                knob, changed.get(knob.name, model.get_parameter(knob.name))
            )
        elif knob.name in activations:
            acting.setdefault(knob.name, []).append(knob)
        else:
            raise InputError(
                f"nothing here is called '{knob.name}': {suggest_name(knob.name, [*known, *activations])}"
            )
    copied = model
    if changed:
        # What is not turned is shared, not copied.
        shared = {id(p): p for name, p in model.named_parameters() if name not in changed}
        copied = copy.deepcopy(model, shared)
        for name, value in changed.items():
            copied.get_parameter(name).copy_(value)
    changes: dict[str, Change] = {name: _acting(several) for name, several in acting.items()}
    for name, value in (patches or {}).items():
        if name not in activations:
            raise InputError(f"no activation is called '{name}': {suggest_name(name, activations)}")
        changes[name] = _patching(name, value, changes.get(name))
    return Turned(copied, changes, changed)


@dataclass(frozen=True, eq=False)
class Comparison:
    """A text read by the network as it is and with knobs turned.

    Attributes:
        before, after: (T, V) natural log-probabilities behind every token.
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
        """(T - 1,) nats of each token but the first, before and after."""
        index = self.prompt.ids[1:, None].to(self.before.device)
        before, after = (-values[:-1].gather(-1, index)[:, 0] for values in (self.before, self.after))
        return before, after

    def top(self, position: int = -1, count: int = 5) -> list[tuple[str, float, float]]:
        """(token, probability before, after) of the likeliest tokens before and after, by the larger of the two."""
        before, after = self.before[position].exp(), self.after[position].exp()
        order = torch.maximum(before, after).argsort(descending=True, stable=True)[:count].tolist()
        return [(self.prompt.decode(token), float(before[token]), float(after[token])) for token in order]

    def __repr__(self) -> str:
        lines = ["turned: " + "; ".join(map(str, self.knobs))]
        lines += [self.prompt.where] if self.prompt.where else []
        if len(self.prompt.ids) > 1:
            before, after = (float(values.mean()) for values in self.losses)
            lines.append(f"loss {before:.4f} -> {after:.4f} nats a token")
        lines.append(f"behind {self.prompt.tokens[-1]!r} ({float(self.divergence[-1]):.3g} nats apart):")
        lines += [f"{text!r:>14} {b:7.2%} -> {a:7.2%}" for text, b, a in self.top()]
        return "\n".join(lines)


@torch.no_grad()
def compare(
    model: LanguageModel,
    tokenizer: EtudeTokenizer,
    text: str,
    knobs: Sequence[Knob | str],
    patches: Mapping[str, Tensor] | None = None,
    where: str = "",
) -> Comparison:
    """What ``text`` is predicted to go on with, as the network is and with ``knobs`` turned.

    Raises:
        InputError: a knob is of nothing in this network, or the text is too long for it.
    """
    prompt = look(model, tokenizer, text, where)
    parsed = tuple(parse_knob(knob) if isinstance(knob, str) else knob for knob in knobs)
    turned = turn(model, parsed, patches)
    for knob in parsed:
        if knob.position is not None and knob.position >= len(prompt.ids):
            raise InputError(f"'{knob}' is of a position beyond the {len(prompt.ids)} tokens of this text")
    taps = Taps(lambda name: name == LOGITS, changes=turned.changes)
    after = run_opened(turned.model, prompt.ids[None], taps=taps)[LOGITS][0]
    before = prompt.activation(LOGITS)[0]
    if not after.isfinite().all() and before.isfinite().all():
        raise InputError(f"'{parsed[-1]}' turns so far that the predictions are not finite: turn it less")
    return Comparison(prompt, parsed, before.double().log_softmax(-1), after.double().log_softmax(-1))


def _turned_parameter(knob: Knob, parameter: Tensor) -> Tensor:
    shape = tuple(parameter.shape)
    if knob.position is not None:
        raise InputError(f"'{knob}' has a position, and a parameter has none: leave @{knob.position} out")
    fits = len(knob.index) <= len(shape) and all(
        place < size for place, size in zip(knob.index, shape, strict=False)
    )
    if not fits:
        raise InputError(f"'{knob}' is outside of {knob.name}, whose shape is {shape} (counted from 0)")
    result = parameter.detach().clone()
    result[knob.index] = knob.turned(result[knob.index])
    if not result.isfinite().all():
        raise InputError(f"'{knob}' turns {knob.name} so far that its numbers are not finite: turn it less")
    return result


def _acting(knobs: Sequence[Knob]) -> Change:
    leaf = knobs[0].name.rsplit(".", 1)[-1]
    hides_the_future = leaf in ("scores", "pattern")  # and goes on to, whatever is turned

    def change(values: Tensor) -> Tensor:
        result = values.clone()
        for knob in knobs:
            axis = _UNIT_AXIS.get(leaf, result.ndim - 1)
            if len(knob.index) > 1 or (knob.index and knob.index[0] >= result.shape[axis]):
                raise InputError(
                    f"'{knob}' is of no unit: {knob.name} has {result.shape[axis]}, counted from 0"
                )
            place: list[int | slice] = [slice(None)] * result.ndim
            if knob.index:
                place[axis] = knob.index[0]
            if knob.position is not None:
                place[2 if axis == 1 else 1] = knob.position  # of scores and patterns it is the query's
            result[tuple(place)] = knob.turned(result[tuple(place)])
        if hides_the_future:
            hidden = torch.ones(values.shape[-2:], dtype=torch.bool, device=values.device).triu(1)
            result = torch.where(hidden, values, result)
        return result

    return change


def _patching(name: str, value: Tensor, then: Change | None) -> Change:
    def change(values: Tensor) -> Tensor:
        if values.shape != value.shape:
            raise InputError(f"{name} is {tuple(values.shape)} here, and the patch {tuple(value.shape)}")
        patched = value.to(values)
        return patched if then is None else then(patched)

    return change
