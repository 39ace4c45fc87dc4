"""The built-in questions with checked answers: question i of a task and a seed depends on (task, seed, i) alone.

Sums of two numbers of at most two digits, copying of letters, and words in a stated form. Each question has one right
answer (:func:`is_right`). One in :data:`HELD_OUT_EVERY` is held out. Its content (the two numbers in any order, the
letters in any order, the words in any order) is in no training question; that of sums and letters is in no text of
``builtin:tasks`` either, since both hold out the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count

from etude.data.conversations.conversation import Example, Message
from etude.data.document import Document, up_to
from etude.data.primer.lexicon import THINGS
from etude.data.primer.rng import Rng
from etude.data.tasks.problem import Key, is_held_out
from etude.data.tasks.strings import LETTERS, drawn, spaced, string_key
from etude.data.tasks.sums import LARGEST, sum_held_out

SUMS, COPYING, FORMAT = "builtin:sums", "builtin:copying", "builtin:format"
SOURCES = (SUMS, COPYING, FORMAT)
HELD_OUT_EVERY = 20
_ATTEMPTS = 10_000
_SHORTEST, _LONGEST = 3, 8
"""Letters to copy."""
_FEWEST, _MOST = 2, 4
"""Words to put into a form."""
_SUM_WORDINGS = (
    "What is {a} plus {b}? Answer with the number alone.",
    "{a} + {b} = ? Answer with the number alone.",
)
_COPY_WORDINGS = (
    "Write these letters again, in the same order: {letters}",
    "Repeat exactly: {letters}",
)
_FORMS = (
    ("joined by hyphens", "{}", "-"),
    ("in square brackets, separated by semicolons", "[{}]", "; "),
    ("in round brackets, separated by slashes", "({})", "/"),
)
"""How the words are to be written: in words, what encloses them, and what separates them."""

Drawn = tuple[str, str, bool]
"""A question, its answer, and whether it is one to hold out."""


def is_right(answer: str, reference: str) -> bool:
    """Return whether an answer is the reference but for white space around it and a full stop after it."""
    return answer.strip().removesuffix(".") == reference.removesuffix(".")


def sums(seed: int = 0, max_bytes: int | None = None) -> Iterator[Document]:
    """Yield questions after a sum, without end or until the next would pass ``max_bytes`` of UTF-8."""
    return _documents(SUMS, _sum, seed, max_bytes)


def copying(seed: int = 0, max_bytes: int | None = None) -> Iterator[Document]:
    """Yield requests to copy letters, as :func:`sums`."""
    return _documents(COPYING, _copy, seed, max_bytes)


def forms(seed: int = 0, max_bytes: int | None = None) -> Iterator[Document]:
    """Yield requests to write words in a form, as :func:`sums`."""
    return _documents(FORMAT, _form, seed, max_bytes)


def _documents(
    source: str, draw: Callable[[Rng], Drawn], seed: int, max_bytes: int | None
) -> Iterator[Document]:
    return up_to(map(partial(_document, source, draw, seed), count()), max_bytes)


def _document(source: str, draw: Callable[[Rng], Drawn], seed: int, index: int) -> Document:
    """Return a question as one line of JSON, of an origin that names its part of the split."""
    part = "train" if index % HELD_OUT_EVERY else "validation"
    name = f"{source.partition(':')[2]}-{seed}-{index}"
    rng = Rng(f"checked {name}")
    for _ in range(_ATTEMPTS):
        question, answer, held_out = draw(rng)
        if held_out is (part == "validation"):
            turns = (Message("user", question), Message("assistant", answer))
            return Document(Example("conversation", turns).to_json(), name, f"{source}/{part}")
    raise AssertionError("a task without both parts")


def _sum(rng: Rng) -> Drawn:
    a, b = rng.between(0, LARGEST), rng.between(0, LARGEST)
    held_out = sum_held_out(a, b) or sum_held_out(b, a)
    return rng.pick(_SUM_WORDINGS).format(a=a, b=b), str(a + b), held_out


def _copy(rng: Rng) -> Drawn:
    letters = drawn(rng, LETTERS, rng.between(_SHORTEST, _LONGEST))
    question = rng.pick(_COPY_WORDINGS).format(letters=spaced(letters))
    return question, spaced(letters), is_held_out(string_key(letters))


def _form(rng: Rng) -> Drawn:
    words = rng.some([kind.noun for kind in THINGS], rng.between(_FEWEST, _MOST))
    form, around, between = rng.pick(_FORMS)
    question = f"Write these words {form}: {', '.join(words)}"
    key: Key = ("format", *sorted(words))
    return question, around.format(between.join(words)), is_held_out(key)
