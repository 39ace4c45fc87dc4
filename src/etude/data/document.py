"""The unit that flows through the data pipeline until it becomes tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar


@dataclass(frozen=True, slots=True)
class Document:
    """One piece of text that belongs together.

    ``text`` is Unicode text, ``id`` is unique within its corpus (used in reports and when a batch is
    named), and ``origin`` says where it came from: a path with a row or section, or a built-in's name.
    """

    text: str
    id: str
    origin: str


class HasText(Protocol):
    """What a generator makes."""

    @property
    def text(self) -> str: ...


_Made = TypeVar("_Made", bound=HasText)


def up_to(made: Iterable[_Made], max_bytes: int | None) -> Iterator[_Made]:
    """What was made, until the next would pass ``max_bytes`` of UTF-8; none is cut."""
    size = 0
    for one in made:
        size += len(one.text.encode())
        if max_bytes is not None and size > max_bytes:
            return
        yield one
