"""What the readers of sources yield, and the log of what they assumed, changed and could not use."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from etude.data.document import Document

PIECE_CHARS = 1 << 20
"""A longer document is passed on as consecutive pieces of about this many characters."""
MAX_ROW_CHARS = 16 << 20
"""A longer row of a table or of JSON is skipped, since it would have to fit in memory."""
EXAMPLES_KEPT = 3


@dataclass(frozen=True, slots=True)
class Piece:
    """A whole document, or the next part of a document too long for one piece.

    ``continues`` means that this text follows the previous piece of the same document.
    """

    document: Document
    continues: bool = False


class Unusable(Exception):
    """A file or row that cannot be used: ``reason`` is a short category, ``detail`` is specific to it."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


@dataclass
class SourceLog:
    """Everything looked at, skipped (by reason, with a few examples), assumed, and changed.

    Attributes:
        assumed: the files for which each assumption was made (such as an encoding), with how to override it.
        changed: how many characters were removed or replaced while cleaning the text, by kind.
    """

    looked_at: list[str] = field(default_factory=list)
    files: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    assumed: dict[tuple[str, str], Counter[str]] = field(default_factory=dict)
    changed: Counter[str] = field(default_factory=Counter)

    def skip(self, reason: str, name: str, detail: str = "", count: int = 1) -> None:
        """Count ``count`` items skipped for ``reason``; ``name`` is one of them."""
        self.skipped[reason] += count
        kept = self.examples.setdefault(reason, [])
        line = f"{name}: {detail}" if detail else name
        if len(kept) < EXAMPLES_KEPT and line not in kept:
            kept.append(line)

    def assume(self, what: str, name: str, otherwise: str = "") -> None:
        """Note that ``what`` was assumed for the file ``name``; ``otherwise`` is how to override it."""
        files = self.assumed.setdefault((what, otherwise), Counter())
        files[name if len(files) < EXAMPLES_KEPT or name in files else ""] += 1

    def notes(self) -> list[str]:
        """Return a line for every assumption, and one for all changed characters."""
        lines = []
        for (what, otherwise), files in self.assumed.items():
            count, first = files.total(), next(iter(files))
            which = first if len(files) == 1 else f"{count:,} files (such as {first})"
            lines.append(f"{which}: {what}{'; otherwise ' + otherwise if otherwise else ''}")
        if self.changed:
            lines.append("; ".join(f"{what}: {count:,}" for what, count in sorted(self.changed.items())))
        return lines

    def as_json(self) -> dict[str, Any]:
        """Return plain values for the report."""
        return {
            "looked_at": self.looked_at,
            "files": self.files,
            "skipped": dict(self.skipped.most_common()),
            "examples": self.examples,
            "changed": dict(sorted(self.changed.items())),
            "notes": self.notes(),
        }
