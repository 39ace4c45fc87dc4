"""The unit that flows through the data pipeline until it becomes tokens."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Document:
    """One piece of text that belongs together.

    ``text`` is Unicode text, ``id`` is unique within its corpus (used in reports and when a batch is
    named), and ``origin`` says where it came from: a path with a row or section, or a built-in's name.
    """

    text: str
    id: str
    origin: str
