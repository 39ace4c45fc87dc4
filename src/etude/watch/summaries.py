"""What training records of a step: norms of weights, gradients and updates, and what heads and neurons do.

Replay can compute everything else later; these few numbers draw curves without one.

Norms are Euclidean. The gradient is that of the whole batch before clipping: the step leaves the clipped one, which is
divided by the step's own factor. The update is what that step added, weight decay included. Attention and neurons are
measured with the weights after the step, on the beginning of its first row, uncompiled, in fp32 and without dropout. A
number that is not finite, or a ratio to zero, is None: JSON has no such numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

import torch
from jaxtyping import Int
from torch import Tensor

from etude.device import return_free_pages
from etude.files import json_safe
from etude.model.language_model import LanguageModel
from etude.model.taps import Taps
from etude.run.events import Event, SummaryEvent
from etude.train.loop import TrainState
from etude.train.objectives import Objective
from etude.train.step import clip_factor, is_out_of_memory
from etude.watch.saturation import ends
from etude.watch.tapped_forward import entropy, run_with_taps

LOOKED_AT = 512
"""Most tokens on which heads and neurons are measured: attention written out takes memory quadratic in them."""
LARGE_MATRIX = 2**24
"""Smallest embedding, in numbers, of a network for which freed memory is returned before the weights are copied."""
_DIGITS = 6
"""Significant digits: more would double the record, and the norms are sums in fp32."""
Norms = dict[str, float | None]


@torch.no_grad()
def weights_before(model: LanguageModel) -> dict[str, Tensor]:
    """Return a copy of the parameters in main memory, so that a step that just fits a GPU still fits."""
    return {name: p.detach().to("cpu", copy=True) for name, p in model.named_parameters()}


@torch.no_grad()
def tensor_norms(model: LanguageModel, before: dict[str, Tensor], clip_factor: float) -> dict[str, Norms]:
    """Return ``weight_norm``, ``grad_norm``, ``update_norm`` and ``update_ratio`` (update to weight) of each parameter.

    ``before`` are the weights before the step; they are removed one by one. ``clip_factor`` is what the step multiplied
    the gradients by.
    """
    measured = []
    for name, parameter in model.named_parameters():
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        update = (
            before.pop(name).to(parameter.device).sub_(parameter)
        )  # with the opposite sign, which the norm ignores
        measured += [_row_norms(parameter), _row_norms(gradient), _row_norms(update)]
    norms = _whole_norms(measured)
    by_name = {}
    for name, _ in model.named_parameters():
        weight, clipped, update_norm = next(norms), next(norms), next(norms)
        by_name[name] = {
            "weight_norm": _rounded(weight),
            "grad_norm": _rounded(clipped / clip_factor),
            "update_norm": _rounded(update_norm),
            "update_ratio": _rounded(update_norm / weight) if weight else None,
        }
    return by_name


def _row_norms(tensor: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(tensor, dim=-1)
    return norms.reshape(-1)


def _whole_norms(row_norms: Sequence[Tensor]) -> Iterator[float]:
    """Return the norm of each tensor from the norms of its rows.

    Rows are summed in fp32, which over millions of numbers would err in the fifth digit; they are added up in float64,
    in one transfer from the device.
    """
    together = torch.cat(list(row_norms)).cpu().double()
    for rows in torch.split(together, [len(norms) for norms in row_norms]):
        yield float(torch.linalg.vector_norm(rows))


@dataclass(frozen=True)
class Activity:
    """What heads and neurons do on some tokens.

    Attributes:
        attention_entropy: by layer and head: nats, the mean over the queries, the first of which sees only itself.
        dead_units: by layer: the share of the MLP's neurons that were at the lower end of their activation function on
            every token (:func:`etude.watch.saturation.ends`). ReLU: never above 0. Smooth ones: less than 1 % of the
            input passed, silu below -4.6 and gelu below -2.3; such a neuron may recover. tanh: below -0.99.
    """

    attention_entropy: list[list[float | None]]
    dead_units: list[float]


@torch.no_grad()
def activity(
    model: LanguageModel, inputs: Int[Tensor, "1 T"], document_ids: Int[Tensor, "1 T"] | None = None
) -> Activity:
    """Run ``inputs`` through ``model`` and measure its heads and neurons."""
    reader = _Reader()
    run_with_taps(model, inputs, document_ids=document_ids, taps=reader)
    heads = torch.stack(reader.entropies).tolist() if reader.entropies else []
    low, _ = ends(model.config.hidden_act, torch.stack(reader.highest).cpu())
    dead = [round(float(share), _DIGITS) for share in low.double().mean(-1)]
    return Activity([[_rounded(value) for value in layer] for layer in heads], dead)


@dataclass
class _Reader(Taps):
    """Reads each activation as it passes, and keeps none: the patterns of all layers would be large."""

    entropies: list[Tensor] = field(default_factory=list)  # by layer, (H,)
    highest: list[Tensor] = field(default_factory=list)  # by layer, (F,): the highest value of each neuron

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


@dataclass
class Summarise:
    """Note how a step changed every parameter. :meth:`before` keeps a copy of the weights from before the update.

    Step 0 and skipped steps have no summary. Where memory is short the summary is omitted, so that the run continues.
    """

    objective: Objective
    max_grad_norm: float
    _kept: tuple[int, dict[str, Tensor]] | None = None

    def before(self, state: TrainState) -> None:
        """Copy the weights before the update of a step."""
        self._kept = None
        if state.model.config.vocab_size * state.model.config.hidden_size > LARGE_MATRIX:
            return_free_pages()  # those of the activations, which the copy would not fill
        with suppress_out_of_memory():
            self._kept = (state.step, weights_before(state.model))

    def __call__(self, state: TrainState) -> Sequence[Event]:
        kept, self._kept = self._kept, None
        if state.last is None or not state.last.applied or kept is None or kept[0] != state.step - 1:
            return []
        factor = clip_factor(state.last.grad_norm, self.max_grad_norm)
        with suppress_out_of_memory():
            tensors = tensor_norms(state.model, kept[1], factor)
            row = self.objective.first_row(state.step, LOOKED_AT)
            seen = activity(state.model, row.inputs, row.document_ids)
            where = (state.step, state.tokens_seen, state.wall_time)
            seconds = {name: round(value, 6) for name, value in asdict(state.last.seconds).items()}
            return [SummaryEvent(*where, tensors, seen.attention_entropy, seen.dead_units, seconds)]
        return []


@contextmanager
def suppress_out_of_memory() -> Iterator[None]:
    """Leave the block without an error where memory runs out in it."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
