"""The beginning of a text that is only read once: no corpus is made of it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from etude.config import DataSettings
from etude.data.corpus.clean import filters, judge, normalise
from etude.data.reading.piece import SourceLog
from etude.data.reading.sources import nothing_usable, open_sources


def beginning_of(sources: Sequence[str], max_bytes: int) -> list[tuple[str, str]]:
    """(id, text) of the first documents, cleaned as a text is that is trained on, of at most ``max_bytes`` of UTF-8.

    The last of them ends where the bytes do.

    Raises:
        InputError: no such source, or nothing usable in it.
    """
    usual = DataSettings()
    asked, log = filters(usual.min_chars), SourceLog()
    found: dict[str, list[str]] = {}
    left, keep = max_bytes, False
    spool = Path(tempfile.mkdtemp(prefix="etude-"))
    try:
        for source in open_sources(sources, text_field=usual.text_field, max_bytes=None, seed=0, spool=spool):
            log.looked_at.append(source.name)
            for piece in source.pieces(log):
                text = normalise(piece.document.text, usual.normalization)
                if not piece.continues:
                    keep, reason = judge(text, asked)
                    if not keep:
                        log.skip(reason, piece.document.id)
                if not keep:
                    continue
                size = len(text.encode())
                if size > left:
                    text = text.encode()[:left].decode("utf-8", "ignore")
                found.setdefault(piece.document.id, []).append(text)
                left -= size
                if left <= 0:
                    return _joined(found)
    finally:
        shutil.rmtree(spool, ignore_errors=True)
    if not found:
        raise nothing_usable(log)
    return _joined(found)


def _joined(found: dict[str, list[str]]) -> list[tuple[str, str]]:
    return [(name, whole) for name, parts in found.items() if (whole := "".join(parts)).strip()]
