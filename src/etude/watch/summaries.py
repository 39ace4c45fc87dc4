"""What is written down of a step while a run trains: how long each weight, gradient and update is, and what heads and
nodes do. Everything else can be computed later by replay; these few numbers draw curves without one.

Norms are Euclidean. The gradient is that of the whole batch before clipping: the clipped one that the step left
behind, divided by the step's own factor. The update is what that very step added, weight decay included. Attention and
nodes are those of the weights after the step, on how its first row begins, gone through uncompiled, in fp32 and without
dropout. A number that is not finite, or a ratio to nothing, is None: JSON has no such numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Int
from torch import Tensor

from etude.files import json_safe
from etude.model.language_model import LanguageModel
from etude.model.taps import Taps
from etude.watch.forward import entropy, run_opened
from etude.watch.saturation import ends

LOOKED_AT = 512
"""Tokens that heads and nodes are looked at on, at most: attention written out takes memory with their square."""
_DIGITS = 6
"""Significant ones: more would make the record twice as long, and the norms are sums in fp32."""
Norms = dict[str, float | None]


@torch.no_grad()
def weights_before(model: LanguageModel) -> dict[str, Tensor]:
    """A copy of the parameters in main memory, so that a step which just fits a GPU still does."""
    return {name: p.detach().to("cpu", copy=True) for name, p in model.named_parameters()}


@torch.no_grad()
def tensor_norms(model: LanguageModel, before: dict[str, Tensor], clip_factor: float) -> dict[str, Norms]:
    """Of each parameter after a step: ``weight_norm``, ``grad_norm``, ``update_norm``, and ``update_ratio``, which is
    the update's to the weight's.

    ``before`` are the weights that the step began with; they are used up. ``clip_factor`` is what the step multiplied
    the gradients by.
    """
    measured = []
    for name, parameter in model.named_parameters():
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        update = before.pop(name).to(parameter.device).sub_(parameter)  # its sign is of no concern
        measured += [_row_norms(parameter), _row_norms(gradient), _row_norms(update)]
    norms = _whole_norms(measured)
    found = {}
    for name, _ in model.named_parameters():
        weight, clipped, update_norm = next(norms), next(norms), next(norms)
        found[name] = {
            "weight_norm": _rounded(weight),
            "grad_norm": _rounded(clipped / clip_factor),
            "update_norm": _rounded(update_norm),
            "update_ratio": _rounded(update_norm / weight) if weight else None,
        }
    return found


def _row_norms(tensor: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(tensor, dim=-1)
    return norms.reshape(-1)


def _whole_norms(row_norms: Sequence[Tensor]) -> Iterator[float]:
    """Rows were added up in fp32, which over millions of numbers would be off in the fifth digit; their sums are not.

    They come over from the device in one piece.
    """
    together = torch.cat(list(row_norms)).cpu().double()
    for rows in torch.split(together, [len(norms) for norms in row_norms]):
        yield float(torch.linalg.vector_norm(rows))


@dataclass(frozen=True)
class Activity:
    """What heads and nodes do on some tokens.

    Attributes:
        attention_entropy: of each layer, by head: nats, the mean over the queries. The first of them sees itself only.
        dead_units: of each layer: the share of its MLP's nodes that were at the lower end of their activation function
            on every token (:func:`etude.watch.saturation.ends`). ReLU: never above 0. Smooth ones: less than 1 % of the
            input passed, silu below -4.6 and gelu below -2.3; such a node may yet come back. tanh: below -0.99.
    """

    attention_entropy: list[list[float | None]]
    dead_units: list[float]


@torch.no_grad()
def activity(
    model: LanguageModel, inputs: Int[Tensor, "1 T"], document_ids: Int[Tensor, "1 T"] | None = None
) -> Activity:
    """Send ``inputs`` through ``model`` and watch."""
    seen = _Reader()
    run_opened(model, inputs, document_ids=document_ids, taps=seen)
    heads = torch.stack(seen.entropies).tolist() if seen.entropies else []
    low, _ = ends(model.config.hidden_act, torch.stack(seen.highest).cpu())
    dead = [round(float(share), _DIGITS) for share in low.double().mean(-1)]
    return Activity([[_rounded(value) for value in layer] for layer in heads], dead)


@dataclass
class _Reader(Taps):
    """Reads each activation as it passes by, and keeps none: the patterns of all layers would be large."""

    entropies: list[Tensor] = field(default_factory=list)  # by layer, (H,)
    highest: list[Tensor] = field(default_factory=list)  # by layer, (F,): the most that each node came to

    def __call__(self, name: str, value: Tensor) -> Tensor:
        leaf = name.rsplit(".", 1)[-1]
        if leaf == "pattern":
            self.entropies.append(entropy(value[0]).mean(-1))
        elif leaf == "pre":
            self.highest.append(value[0].amax(0))
        return value


def _rounded(number: float) -> float | None:
    safe: float | None = json_safe(float(f"{number:.{_DIGITS}g}"))
    return safe
