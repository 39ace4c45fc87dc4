"""What an attention head mostly does along a text: three kinds that its pattern shows directly."""

from __future__ import annotations

from dataclasses import dataclass

from etude.watch.forward import entropy
from etude.watch.prompts import Prompt


@dataclass(frozen=True)
class KindOfHead:
    """Shares of a head's attention, each a mean over the queries that see more than themselves.

    Attributes:
        previous: to the previous token.
        first: to the first token.
        itself: to the query's own token.
        entropy: nats; 0 if all attention goes to one token.
    """

    layer: int
    head: int
    previous: float
    first: float
    itself: float
    entropy: float


def kinds_of_heads(prompt: Prompt) -> list[KindOfHead]:
    """Return every head, layer by layer; an empty list for a single token.

    Raises:
        InputError: a network without attention.
    """
    kinds = []
    for layer in range(prompt.model.config.num_hidden_layers):
        patterns = prompt.pattern(layer).tensor
        if patterns.shape[-1] < 2:
            return []
        for head, pattern in enumerate(patterns):
            kinds.append(
                KindOfHead(
                    layer,
                    head,
                    float(pattern.diagonal(-1).mean()),
                    float(pattern[1:, 0].mean()),
                    float(pattern.diagonal()[1:].mean()),
                    float(entropy(pattern[1:]).mean()),
                )
            )
    return kinds
