"""The terms of a logit, by the part of the network that adds them (`LanguageModel.logit_terms`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from etude.model.language_model import LOGITS, LanguageModel


@dataclass(frozen=True)
class Contributions:
    """The terms of one logit.

    Attributes:
        terms: by the part that adds it, in the order of the network.
        unexplained: the logit minus the sum of its terms: rounding of the forward pass.
    """

    position: int
    token: int
    text: str
    logit: float
    terms: dict[str, float]

    @property
    def unexplained(self) -> float:
        return self.logit - sum(self.terms.values())

    def __repr__(self) -> str:
        largest = sorted(self.terms.items(), key=lambda term: -abs(term[1]))
        lines = [f"{value:+9.4f}  {name}" for name, value in largest[:9]]
        rest = sum(value for _, value in largest[9:])
        return "\n".join(
            [
                f"logit {self.logit:.4f} of {self.text!r} after position {self.position}",
                *lines,
                f"{rest:+9.4f}  {max(0, len(largest) - 9)} others; unexplained {self.unexplained:.1e}",
            ]
        )


@torch.no_grad()
def contributions(
    model: LanguageModel,
    opened: Mapping[str, Tensor],
    position: int,
    token: int,
    decode: Callable[[int], str],
) -> Contributions:
    """Return the terms of the logit of ``token`` after ``position``, from the activations of a forward pass."""
    at_position = {name: value[0, position].cpu().double() for name, value in opened.items()}
    terms = model.logit_terms(at_position, position, token)
    return Contributions(position, token, decode(token), float(at_position[LOGITS][token]), terms)
