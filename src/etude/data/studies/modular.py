"""Subtraction modulo 59, every sum of it once: a text that is small enough to be learned by heart, and has a rule.

A number is one character, so ``a-b=c`` is five tokens. There are 59 x 59 = 3,481 of them; what is held out can be
known by the rule alone. Whether, and how long after, a network that knows the shown ones by heart finds the rule is
what Power et al. 2022 ("Grokking: generalization beyond overfitting on small algorithmic datasets") looked at.
"""

from __future__ import annotations

import string
from collections.abc import Iterator

from etude.data.document import Document, up_to
from etude.data.primer.rng import Rng

MODULUS = 59
"""A prime, and no more than there are characters."""
SYMBOLS = (string.digits + string.ascii_letters)[:MODULUS]


def documents(seed: int = 0, max_bytes: int | None = None) -> Iterator[Document]:
    """Every sum once, in an order of the seed: all, or until the next would pass ``max_bytes`` of UTF-8."""
    pairs = [(a, b) for a in range(MODULUS) for b in range(MODULUS)]
    ordered = Rng(f"modular {seed}").some(pairs, len(pairs))
    return up_to((_document(a, b) for a, b in ordered), max_bytes)


def _document(a: int, b: int) -> Document:
    text = f"{SYMBOLS[a]}-{SYMBOLS[b]}={SYMBOLS[(a - b) % MODULUS]}"
    return Document(text=text, id=f"modular-{a}-{b}", origin="builtin:modular")
