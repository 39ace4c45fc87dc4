"""Print lines without markup, format durations and sizes, and make the text of a model safe to print."""

from __future__ import annotations

import unicodedata

from rich.console import Console


def print_line(console: Console, line: str) -> None:
    """Print a line unchanged: without markup, never wrapped."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def say(console: Console, text: str) -> None:
    """Print text without markup. Long lines are wrapped at words in a terminal, and not at all in a file."""
    console.print(text, markup=False, highlight=False, soft_wrap=not console.is_terminal)


def format_duration(seconds: float) -> str:
    """Format seconds: ``75.2`` as ``1:15``, ``5025`` as ``1:23:45``."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    tail = f"{whole % 60:02d}"
    return f"{hours}:{minutes:02d}:{tail}" if hours else f"{minutes}:{tail}"


def shorten(text: str, width: int = 160) -> str:
    """Return ``text`` on one line of at most ``width`` characters."""
    line = " ".join(printable(text).split())
    return line if len(line) <= width else line[: width - 1].rstrip() + "…"


def printable(text: str) -> str:
    """Replace the control characters that would move a terminal's cursor or change its colours."""
    return "".join(
        c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs") else "�" for c in text
    )


def format_bytes(count: int) -> str:
    """Return a number of bytes in megabytes, or in gigabytes from one on: 0.1 MB at least."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{max(0.1, count / 1e6):,.1f} MB"
