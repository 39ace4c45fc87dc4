"""Which tokens of a text speak for a prediction: by the gradient, and by leaving one out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from etude.model.language_model import EMBED, LOGITS, LanguageModel
from etude.model.taps import Taps
from etude.watch.forward import run_opened
from etude.watch.held_out import rows_at_once

Told = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Attribution:
    """Of the logit of ``token`` behind ``position``.

    Attributes:
        gradient_times_input: (P,) for each token up to the position: its embedding times the logit's gradient there;
            what a first-order estimate gives for taking the embedding to zero.
        ablation: (P,) what the logit loses when that token's embedding is replaced by the mean of all tokens'.
    """

    position: int
    token: int
    text: str
    logit: float
    tokens: tuple[str, ...]
    gradient_times_input: Float[Tensor, " P"]
    ablation: Float[Tensor, " P"]

    def __repr__(self) -> str:
        order = self.ablation.abs().argsort(descending=True).tolist()[:9]
        pairs = [(float(self.gradient_times_input[place]), float(self.ablation[place])) for place in order]
        lines = [
            f"{self.tokens[place]!r:>14} at {place:<4} {by_gradient:+8.3f} {lost:+8.3f}"
            for place, (by_gradient, lost) in zip(order, pairs, strict=True)
        ]
        return "\n".join(
            [
                f"logit {self.logit:.3f} of {self.text!r}: gradient x input, and what it loses without the token",
                *lines,
            ]
        )


def attribution(
    model: LanguageModel,
    ids: Int[Tensor, " T"],
    tokens: tuple[str, ...],
    position: int,
    token: int,
    decode: Callable[[int], str],
    told: Told | None = None,
) -> Attribution:
    """Both measures, for each token up to ``position``. Costs a backward pass, and a forward pass a token.

    ``told`` hears, as it goes on, how many tokens were left out, of how many.
    """
    seen = ids[None, : position + 1]
    taps = Taps(lambda name: name in (EMBED, LOGITS), gradients=True)
    with torch.enable_grad():
        opened = run_opened(model, seen, taps=taps)
        logit = opened[LOGITS][0, -1, token]
        (gradient,) = torch.autograd.grad(logit, opened[EMBED])
    by_gradient = _by_token(model, (gradient * opened[EMBED].detach())[0])
    return Attribution(
        position,
        token,
        decode(token),
        float(logit.detach()),
        tokens[: position + 1],
        by_gradient,
        _by_ablation(model, seen, token, float(logit.detach()), told),
    )


@torch.no_grad()
def _by_ablation(
    model: LanguageModel, seen: Int[Tensor, "1 P"], token: int, logit: float, told: Told | None
) -> Float[Tensor, " P"]:
    length = seen.shape[1]
    rows, lost = rows_at_once(model.config, length), torch.zeros(length)
    for first in range(0, length, rows):
        if told is not None:
            told(first, length)
        places = range(first, min(first + rows, length))
        taps = Taps(lambda name: name == LOGITS, changes={EMBED: _without(model, places)})
        logits = run_opened(model, seen.expand(len(places), -1), taps=taps)[LOGITS]
        lost[first : first + rows] = logit - logits[:, -1, token].float().cpu()
    return lost


def _without(model: LanguageModel, places: range) -> Callable[[Tensor], Tensor]:
    """A change of the embeddings: row i of the batch loses the token at ``places[i]``."""
    mean, slots = model.embedding_weight().mean(0), model.tokens_per_position

    def replaced(embedded: Tensor) -> Tensor:
        changed = embedded.clone()
        for row, place in enumerate(places):
            for reader in range(place, min(place + slots, changed.shape[1])):  # all that read this token
                slot = slots - 1 - (reader - place)
                changed[row, reader, slot * len(mean) : (slot + 1) * len(mean)] = mean
        return changed

    return replaced


def _by_token(model: LanguageModel, products: Float[Tensor, "P W"]) -> Float[Tensor, " P"]:
    """The sum over each token's embedding, which may stand in what several positions read."""
    slots = model.tokens_per_position
    by_slot = products.view(len(products), slots, -1).sum(-1).cpu()  # (P, slots)
    by_token = by_slot[:, -1].clone()
    for back in range(1, min(slots, len(products))):
        by_token[:-back] += by_slot[back:, slots - 1 - back]
    return by_token
