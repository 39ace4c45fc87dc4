"""Make parts of conversations in memory: their tokens and what is trained of them, without text."""

from __future__ import annotations

import numpy as np

from etude.data.tokens.examples import ExampleTokens
from etude.data.tokens.parts import TokenPart


def part_of(count: int, length: int, answer: int = 10) -> TokenPart:
    """Return ``count`` conversations of ``length`` tokens, of which the last ``answer`` are trained."""
    documents = np.arange(count + 1, dtype=np.int64) * length
    trained = np.tile(np.arange(length) >= length - answer, count)
    examples = ExampleTokens(
        trained, documents[1:], 3 * documents, np.stack([documents[1:], documents[1:]]), lambda a, b: b""
    )
    tokens = np.ones(count * length, np.uint16)
    return TokenPart([tokens], 0, documents, np.stack([documents, 3 * documents]), examples=examples)
