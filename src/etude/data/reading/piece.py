"""What the readers of sources yield, and where they write down what they could not use."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from etude.data.document import Document

PIECE_CHARS = 1 << 20
"""A longer document travels as consecutive pieces of about this many characters."""
MAX_ROW_CHARS = 16 << 20
"""A row of .jsonl, .csv or .parquet with more characters is skipped: it would have to fit in memory."""
EXAMPLES_KEPT = 3


@dataclass(frozen=True, slots=True)
class Piece:
    """A whole document, or the next part of a document too long for one piece of memory.

    ``continues`` says that this text follows the piece before it in the same document.
    """

    document: Document
    continues: bool = False


class Unusable(Exception):
    """A file or row that cannot be used: ``reason`` is a short category, ``detail`` is for this one."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


@dataclass
class SourceLog:
    """What was looked at and what was skipped, by reason, with a few examples of each."""

    looked_at: list[str] = field(default_factory=list)
    files: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def skip(self, reason: str, name: str, detail: str = "", count: int = 1) -> None:
        """Count ``count`` things skipped for ``reason``; ``name`` is one of them."""
        self.skipped[reason] += count
        kept = self.examples.setdefault(reason, [])
        line = f"{name}: {detail}" if detail else name
        if len(kept) < EXAMPLES_KEPT and line not in kept:
            kept.append(line)

    def as_json(self) -> dict[str, Any]:
        """Plain values for the report."""
        return {
            "looked_at": self.looked_at,
            "files": self.files,
            "skipped": dict(self.skipped.most_common()),
            "examples": self.examples,
        }
