"""Every subtraction modulo 59, once: a text small enough to be memorised that follows a rule.

A number is one character, so ``a-b=c`` is five tokens. There are 59 x 59 = 3,481 equations; the held-out ones can only
be predicted from the rule. Power et al. 2022 ("Grokking: generalization beyond overfitting on small algorithmic
datasets") studied whether, and how long after memorising the training equations, a network finds the rule.
"""

from __future__ import annotations

import string
from collections.abc import Iterator

from etude.data.document import Document, up_to
from etude.data.primer.rng import Rng

MODULUS = 59
"""A prime, no larger than the number of symbols."""
SYMBOLS = (string.digits + string.ascii_letters)[:MODULUS]


def documents(seed: int = 0, max_bytes: int | None = None) -> Iterator[Document]:
    """Yield every equation once, in an order chosen by the seed, until the next would pass ``max_bytes`` of UTF-8."""
    pairs = [(a, b) for a in range(MODULUS) for b in range(MODULUS)]
    ordered = Rng(f"modular {seed}").some(pairs, len(pairs))
    return up_to((_document(a, b) for a, b in ordered), max_bytes)


def _document(a: int, b: int) -> Document:
    text = f"{SYMBOLS[a]}-{SYMBOLS[b]}={SYMBOLS[(a - b) % MODULUS]}"
    return Document(text=text, id=f"modular-{a}-{b}", origin="builtin:modular")
