"""The unit that flows through the data pipeline until it becomes tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar


@dataclass(frozen=True, slots=True)
class Document:
    """One piece of text that belongs together.

    ``text`` is Unicode text, ``id`` is unique within its corpus (used in reports and to name a batch), and ``origin``
    is where it came from: a path with a row or section, or the name of a built-in corpus. ``kind`` is what the row of
    an example calls itself, if it does.
    """

    text: str
    id: str
    origin: str
    kind: str = ""


class HasText(Protocol):
    """Anything with a text, such as what a generator makes."""

    @property
    def text(self) -> str: ...


_Made = TypeVar("_Made", bound=HasText)


def up_to(made: Iterable[_Made], max_bytes: int | None) -> Iterator[_Made]:
    """Yield whole documents until the next would pass ``max_bytes`` of UTF-8."""
    size = 0
    for document in made:
        size += len(document.text.encode())
        if max_bytes is not None and size > max_bytes:
            return
        yield document
