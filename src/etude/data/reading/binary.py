"""Files that are not text: recognise them by ending or first bytes, and advise what to do with each."""

from __future__ import annotations

import re

_SAVE_AS = "save it as .txt, .docx or .pdf first"
_TABLE = "save the sheet as .csv first"
_UNPACK = "unpack it and name the folder"

REFUSED = {
    ".doc": ("a Word file of the old kind", _SAVE_AS),
    ".odt": ("an OpenDocument text", _SAVE_AS),
    ".pages": ("a Pages document", _SAVE_AS),
    ".ppt": ("a presentation", "save it as .pdf first"),
    ".pptx": ("a presentation", "save it as .pdf first"),
    ".odp": ("a presentation", "save it as .pdf first"),
    ".xls": ("a spreadsheet", _TABLE),
    ".xlsx": ("a spreadsheet", _TABLE),
    ".ods": ("a spreadsheet", _TABLE),
    ".mobi": ("an e-book that is not EPUB", "convert it to .epub first"),
    ".azw3": ("an e-book that is not EPUB", "convert it to .epub first"),
    ".zip": ("an archive", _UNPACK),
    ".tar": ("an archive", _UNPACK),
    ".tgz": ("an archive", _UNPACK),
    ".7z": ("an archive", _UNPACK),
    ".rar": ("an archive", _UNPACK),
    ".bz2": ("compressed by bzip2", "decompress it first; .gz and .zst are read as they are"),
    ".xz": ("compressed by xz", "decompress it first; .gz and .zst are read as they are"),
    ".db": ("a database", "export its table as .csv or .jsonl"),
    ".sqlite": ("a database", "export its table as .csv or .jsonl"),
}
"""Endings that are refused, each with what it stands for and what to do instead."""

_BY_RENAMING = "its name does not match its content: give it the ending {}"
_SIGNATURES: list[tuple[re.Pattern[bytes], str, str]] = [
    (re.compile(pattern, re.DOTALL), kind, advice)
    for pattern, kind, advice in [
        (rb"%PDF-\d", "a PDF", _BY_RENAMING.format(".pdf")),
        (rb"\{\\rtf\d", "rich text", _BY_RENAMING.format(".rtf")),
        (rb"PK\x03\x04", "a zip archive (or .docx, .epub, .xlsx)", "give it its own ending, or unpack it"),
        (rb"PAR1.{0,4}[\x00-\x1f]", "Parquet", _BY_RENAMING.format(".parquet")),
        (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Office file of the old kind", _SAVE_AS),
        (rb"\x1f\x8b\x08", "compressed by gzip", _BY_RENAMING.format(".gz")),
        (rb"\x28\xb5\x2f\xfd", "compressed by zstd", _BY_RENAMING.format(".zst")),
        (rb"BZh[1-9]1AY&SY", "compressed by bzip2", "decompress it first"),
        (rb"\xfd7zXZ\x00", "compressed by xz", "decompress it first"),
        (rb"7z\xbc\xaf\x27\x1c", "an archive", _UNPACK),
        (rb"Rar!\x1a\x07", "an archive", _UNPACK),
        (rb".{257}ustar[\x00 ]", "an archive", _UNPACK),
        (rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|II\*\x00|MM\x00\*|RIFF....WEBP", "an image", ""),
        (rb"RIFF....(WAVE|AVI )|ID3[\x02-\x04]\x00|OggS\x00|fLaC\x00|....ftyp", "sound or video", ""),
        (rb"SQLite format 3\x00", "a database", "export its table as .csv or .jsonl"),
        (rb"\x7fELF|\xca\xfe\xba\xbe|\xcf\xfa\xed\xfe|\x00asm|MZ.{58}....PE\x00\x00", "a program", ""),
    ]
]

_TEXT_BYTES = bytes({*range(0x20, 0x7F), *range(0x80, 0x100), *b"\t\n\v\f\r\b\x1b"})
_MOST_CONTROL_IN_UTF8 = 0.2
_MOST_CONTROL_ELSE = 0.02
"""Random bytes hold a tenth of control characters; text in any 8-bit encoding holds almost none."""


def signature(head: bytes) -> tuple[str, str] | None:
    """Return (kind, advice) for bytes that begin like a known kind of file other than plain text, else None."""
    return next(((kind, advice) for pattern, kind, advice in _SIGNATURES if pattern.match(head)), None)


def control_bytes(data: bytes) -> int:
    """Count the control characters that no text needs, including NUL."""
    return len(data.translate(None, _TEXT_BYTES))


def too_many(controls: int, size: int, *, is_utf8: bool) -> bool:
    """Return whether ``controls`` control bytes among ``size`` mean that this is not text; a single one never does."""
    return controls > 1 + (_MOST_CONTROL_IN_UTF8 if is_utf8 else _MOST_CONTROL_ELSE) * size
