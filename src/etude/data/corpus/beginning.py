"""The beginning of a text that is only read once: no corpus is made of it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from etude.config import DataSettings
from etude.data.corpus.intake import Intake, fitting
from etude.data.reading.sources import open_sources


def beginning_of(sources: Sequence[str], max_bytes: int) -> list[tuple[str, str]]:
    """(id, text) of the first documents, cleaned as a text is that is trained on, of at most ``max_bytes`` of UTF-8.

    The last of them ends where the bytes do.

    Raises:
        InputError: no such source, or nothing usable in it.
    """
    usual, intake, left = DataSettings(), Intake(), max_bytes
    found: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="etude-") as spool:
        opened = open_sources(sources, text_field=usual.text_field, max_bytes=None, seed=0, spool=Path(spool))
        for piece in intake.cleaned(opened, usual):
            name, text = piece.document.id, piece.document.text
            found[name] = found.get(name, "") + fitting(text, left)
            left -= len(text.encode())
            if left <= 0:
                break
    if not found:
        raise intake.nothing_usable()
    return [(name, text) for name, text in found.items() if text.strip()]
