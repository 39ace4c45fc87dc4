"""Which tokens of a text contribute to a prediction, by gradient x input and by ablation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from etude.model.language_model import EMBED, LOGITS, LanguageModel
from etude.model.taps import Taps
from etude.watch.held_out import rows_at_once
from etude.watch.tapped_forward import run_with_taps

Progress = Callable[[int, int], None]
"""Called with (done, total)."""


@dataclass(frozen=True, eq=False)
class Attribution:
    """Contributions of the tokens to the logit of ``token`` at ``position``.

    Attributes:
        gradient_times_input: (P,) for each token up to the position, its embedding times the gradient of the logit: a
            first-order estimate of what setting the embedding to zero would remove.
        ablation: (P,) what the logit loses when the token's embedding is replaced by the mean embedding.
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
            f"{self.tokens[place]!r:>14} at {place:<4} {by_gradient:+8.3f} {drop:+8.3f}"
            for place, (by_gradient, drop) in zip(order, pairs, strict=True)
        ]
        return "\n".join(
            [
                f"logit {self.logit:.3f} of {self.text!r}: gradient x input, and its loss without the token",
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
    on_progress: Progress | None = None,
) -> Attribution:
    """Compute both measures for each token up to ``position``: one backward pass, and one forward pass per token.

    ``on_progress`` is called with how many tokens have been ablated, and how many there are.
    """
    seen = ids[None, : position + 1]
    taps = Taps(lambda name: name in (EMBED, LOGITS), gradients=True)
    with torch.enable_grad():
        opened = run_with_taps(model, seen, taps=taps)
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
        _by_ablation(model, seen, token, float(logit.detach()), on_progress),
    )


@torch.no_grad()
def _by_ablation(
    model: LanguageModel, seen: Int[Tensor, "1 P"], token: int, logit: float, on_progress: Progress | None
) -> Float[Tensor, " P"]:
    length = seen.shape[1]
    rows, drops = rows_at_once(model.config, length), torch.zeros(length)
    for first in range(0, length, rows):
        if on_progress is not None:
            on_progress(first, length)
        places = range(first, min(first + rows, length))
        taps = Taps(lambda name: name == LOGITS, changes={EMBED: _without(model, places)})
        logits = run_with_taps(model, seen.expand(len(places), -1), taps=taps)[LOGITS]
        drops[first : first + rows] = logit - logits[:, -1, token].float().cpu()
    return drops


def _without(model: LanguageModel, places: range) -> Callable[[Tensor], Tensor]:
    """Return a change of the embeddings: row i of the batch loses the token at ``places[i]``."""
    mean, slots = model.embedding_weight().mean(0), model.tokens_per_position

    def replaced(embedded: Tensor) -> Tensor:
        changed = embedded.clone()
        for row, place in enumerate(places):
            for reader in range(
                place, min(place + slots, changed.shape[1])
            ):  # every position that reads this token
                slot = slots - 1 - (reader - place)
                changed[row, reader, slot * len(mean) : (slot + 1) * len(mean)] = mean
        return changed

    return replaced


def _by_token(model: LanguageModel, products: Float[Tensor, "P W"]) -> Float[Tensor, " P"]:
    """Sum the products over each token's embedding, which several positions may read (mlp family)."""
    slots = model.tokens_per_position
    by_slot = products.view(len(products), slots, -1).sum(-1).cpu()  # (P, slots)
    by_token = by_slot[:, -1].clone()
    for back in range(1, min(slots, len(products))):
        by_token[:-back] += by_slot[back:, slots - 1 - back]
    return by_token
