"""Random strings, each written twice: the second half is predictable, but only from the first half.

Every string is new, so counts of which character follows which are of no use. A model predicts all of the second half
if it finds the last character earlier in the text and copies what followed it (an induction head, Olsson et al. 2022,
"In-context learning and induction heads").
"""

from __future__ import annotations

import string
from collections.abc import Iterator
from functools import partial
from itertools import count

from etude.data.document import Document, up_to
from etude.data.primer.rng import Rng

CHARACTERS = string.digits + string.ascii_letters
SHORTEST, LONGEST = 8, 24
"""Characters of the string, before it is repeated."""


def document(seed: int, index: int) -> Document:
    """Return document ``index`` of a seed: the same bytes on any machine."""
    rng = Rng(f"repeats {seed} {index}")
    text = "".join(rng.pick(CHARACTERS) for _ in range(rng.between(SHORTEST, LONGEST)))
    return Document(text=text + text, id=f"repeats-{seed}-{index}", origin="builtin:repeats")


def documents(seed: int = 0, max_bytes: int | None = None) -> Iterator[Document]:
    """Yield documents 0, 1, 2 ... of a seed, without end or until the next would pass ``max_bytes`` of UTF-8."""
    return up_to(map(partial(document, seed), count()), max_bytes)
