"""The first documents of a text that is read only once, without writing a corpus."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from etude.data.corpus.intake import Intake, fitting
from etude.data.reading.sources import open_sources
from etude.text_settings import DataSettings


def beginning_of(sources: Sequence[str], max_bytes: int) -> list[tuple[str, str]]:
    """Return (id, text) of the first documents, cleaned as training text is, up to ``max_bytes`` of UTF-8 in all.

    The last document is cut at the limit.

    Raises:
        InputError: no such source, or nothing usable in it.
    """
    defaults, intake, left = DataSettings(), Intake(), max_bytes
    texts: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="etude-") as spool:
        opened = open_sources(
            sources, text_field=defaults.text_field, max_bytes=None, seed=0, spool=Path(spool)
        )
        for piece in intake.cleaned(opened, defaults):
            name, text = piece.document.id, piece.document.text
            texts[name] = texts.get(name, "") + fitting(text, left)
            left -= len(text.encode())
            if left <= 0:
                break
    if not texts:
        raise intake.nothing_usable()
    return [(name, text) for name, text in texts.items() if text.strip()]
