"""What each head of attention mostly does along a text: a few kinds that are easy to tell from its pattern."""

from __future__ import annotations

from dataclasses import dataclass

from etude.watch.forward import entropy
from etude.watch.prompts import Prompt


@dataclass(frozen=True)
class KindOfHead:
    """Shares of a head's attention, means over the queries that see more than themselves.

    Attributes:
        previous: to the token just before.
        first: to the first token.
        itself: to the token itself.
        entropy: nats; 0 where all goes to one token.
    """

    layer: int
    head: int
    previous: float
    first: float
    itself: float
    entropy: float


def kinds_of_heads(prompt: Prompt) -> list[KindOfHead]:
    """Of every head, layer by layer; none along a single token.

    Raises:
        InputError: a network without attention.
    """
    found = []
    for layer in range(prompt.model.config.num_hidden_layers):
        patterns = prompt.pattern(layer).tensor
        if patterns.shape[-1] < 2:
            return []
        for head, pattern in enumerate(patterns):
            found.append(
                KindOfHead(
                    layer,
                    head,
                    float(pattern.diagonal(-1).mean()),
                    float(pattern[1:, 0].mean()),
                    float(pattern.diagonal()[1:].mean()),
                    float(entropy(pattern[1:]).mean()),
                )
            )
    return found
