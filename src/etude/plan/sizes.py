"""What a size means: the shape of the network, and the context and batch that follow from the amount of text."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """Width, depth and heads; everything else of a network follows from these and its family."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int


@dataclass(frozen=True)
class Size:
    """One position of the dial."""

    shape: Shape
    tokens: int  # to be seen in training


SHAPES = (
    Shape(64, 2, 2),
    Shape(96, 3, 3),
    Shape(128, 4, 4),
    Shape(192, 4, 3),
    Shape(256, 6, 4),
    Shape(384, 8, 6),
    Shape(512, 8, 8),
    Shape(768, 12, 12),
    Shape(1024, 16, 16),
    Shape(1536, 24, 24),
    Shape(2048, 24, 32),
)
"""What ``--time`` chooses from, narrow to wide; depth grows with width, as it does in most published families."""

SIZES = {
    "nano": Size(Shape(64, 2, 2), 1_000_000),
    "tiny": Size(Shape(128, 4, 4), 2_300_000),
    "small": Size(Shape(256, 6, 4), 20_000_000),
    "medium": Size(Shape(512, 8, 8), 300_000_000),
    "large": Size(Shape(768, 12, 12), 2_000_000_000),
}

_CONTEXTS = ((500_000, 128), (50_000_000, 256), (1_000_000_000, 512))
_LONGEST_CONTEXT = 1024
DROPOUT_PER_DOUBLING, LEAST_DROPOUT, MOST_DROPOUT = 0.1, 0.03, 0.2
"""Less than the least is left out, for it takes a tenth of the time whatever it is."""
READ_WITHOUT_DROPOUT = 3
WEIGHT_DECAY, WEIGHT_DECAY_WITH_DROPOUT = 0.1, 0.3
_BATCH_AT = 2_300_000
"""Tokens of a run whose best batch is 2,048 tokens: the size tiny, swept."""


def context_for(tokens: int) -> int:
    """Tokens in a row for a run that sees ``tokens``: what stands far away is learned late and costs at once."""
    return next((context for most, context in _CONTEXTS if tokens < most), _LONGEST_CONTEXT)


def dropout_for(epochs: float, parameters_per_token: float) -> float:
    """Probability of dropout for a run that reads its text ``epochs`` times: none for three, more with each doubling.

    What is read again and again is learned by heart, unless the network never sees it with all of its parts. But a
    network with few parameters for each token of the text has no room for that, and loses by dropout: with a quarter of
    one there is none, with two there is all of it (lab notebook, "small texts").
    """
    room = min(1.0, max(0.0, math.log2(4 * parameters_per_token) / 3))
    wanted = DROPOUT_PER_DOUBLING * room * math.log2(max(1.0, epochs / READ_WITHOUT_DROPOUT))
    return round(min(wanted, MOST_DROPOUT), 2) if wanted >= LEAST_DROPOUT else 0.0


def weight_decay_for(dropout: float) -> float:
    """Decoupled weight decay: against learning by heart, what is learned once and seldom used is forgotten sooner."""
    return WEIGHT_DECAY_WITH_DROPOUT if dropout else WEIGHT_DECAY


def batch_tokens_for(tokens: int) -> int:
    """Tokens a step for a run that sees ``tokens``: the nearest power of two to 2048 sqrt(tokens / 2.3 M).

    The noise of the gradient matters more the lower the loss, so longer runs gain from larger batches (McCandlish et
    al. 2018); at twice the batch and twice the tokens the number of updates grows too. No less than 512: what an update
    costs whatever its batch would be the most of it.
    """
    wanted = max(2048 * math.sqrt(tokens / _BATCH_AT), 512)
    return 1 << round(math.log2(wanted))
