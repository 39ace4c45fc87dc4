"""Sizes: shapes of the network, and the context, batch and regularisation that follow from the amount of text."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """Width, depth and heads. The family determines the other sizes."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int


@dataclass(frozen=True)
class Size:
    """A position of the dial: a shape, and the number of tokens to train on."""

    shape: Shape
    tokens: int


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
"""Candidates of ``--time``, from narrow to wide. Depth grows with width, as in most published families."""

SIZES = {
    "nano": Size(Shape(64, 2, 2), 1_000_000),
    "tiny": Size(Shape(128, 4, 4), 2_300_000),
    "small": Size(Shape(256, 6, 4), 20_000_000),
    "medium": Size(Shape(512, 8, 8), 300_000_000),
    "large": Size(Shape(768, 12, 12), 2_000_000_000),
}

_CONTEXTS = ((500_000, 128), (50_000_000, 256), (1_000_000_000, 512))
"""Context by number of training tokens (below the first number of a pair)."""
_LONGEST_CONTEXT = 1024
DROPOUT_PER_DOUBLING, LEAST_DROPOUT, MOST_DROPOUT = 0.1, 0.03, 0.2
"""Smaller probabilities become 0: dropout of any size costs a tenth of the time."""
READ_WITHOUT_DROPOUT = 3
"""Epochs without dropout."""
WEIGHT_DECAY, WEIGHT_DECAY_WITH_DROPOUT = 0.1, 0.3
_BATCH_AT = 2_300_000
"""Tokens of a run whose best batch is 2,048 tokens: the size tiny, by a sweep."""


def context_for(tokens: int) -> int:
    """Return the context for a run on ``tokens``: long-range structure is learned late and costs at once."""
    return next((context for most, context in _CONTEXTS if tokens < most), _LONGEST_CONTEXT)


def dropout_for(epochs: float, parameters_per_token: float) -> float:
    """Return the dropout probability for ``epochs`` passes over the text: 0 up to three, more with each doubling.

    A network memorises text that it reads many times; dropout prevents that. A network with few parameters per token
    of the text cannot memorise it, and dropout would only raise its loss. So the probability grows from 0 at a quarter
    of a parameter per token to its full value at two (lab notebook, "small texts").
    """
    room = min(1.0, max(0.0, math.log2(4 * parameters_per_token) / 3))
    wanted = DROPOUT_PER_DOUBLING * room * math.log2(max(1.0, epochs / READ_WITHOUT_DROPOUT))
    return round(min(wanted, MOST_DROPOUT), 2) if wanted >= LEAST_DROPOUT else 0.0


def weight_decay_for(dropout: float) -> float:
    """Return the weight decay: more with dropout, against memorisation."""
    return WEIGHT_DECAY_WITH_DROPOUT if dropout else WEIGHT_DECAY


def batch_tokens_for(tokens: int) -> int:
    """Return the tokens per step for a run on ``tokens``: the power of two nearest to 2048 sqrt(tokens / 2.3 M).

    Gradient noise matters more at a lower loss, so longer runs gain from larger batches (McCandlish et al. 2018). With
    the square root, the number of updates grows with the tokens as well. At least 512: below it the fixed cost of an
    update dominates.
    """
    wanted = max(2048 * math.sqrt(tokens / _BATCH_AT), 512)
    return 1 << round(math.log2(wanted))
