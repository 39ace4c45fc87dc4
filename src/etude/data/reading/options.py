"""The settings of the readers: which field holds the text, in which encoding, and how tables of text are separated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePath
from typing import Literal

import webencodings

from etude.config import DataSettings
from etude.errors import InputError
from etude.untrusted import shown

_WEB_NAMES = {"cp932": "shift_jis", "cp949": "euc-kr", "big5hkscs": "big5", "cp874": "windows-874"}
DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}


@dataclass(frozen=True)
class ReadingOptions:
    """How files are read; see the settings of the same names in :class:`etude.config.DataSettings`.

    Raises:
        InputError: an encoding that is not known.
    """

    text_field: str = "text"
    encoding: tuple[str, ...] = ("auto",)
    csv_delimiter: str = "auto"
    csv_header: Literal["auto"] | bool = "auto"

    @classmethod
    def of(cls, data: DataSettings) -> ReadingOptions:
        """Those of the settings."""
        return cls(data.text_field, data.encoding, data.csv_delimiter, data.csv_header)

    def __post_init__(self) -> None:
        for rule in self.encoding:
            _, encoding = _split(rule)
            if encoding != "auto":
                codec_of(encoding)

    @property
    def delimiter(self) -> str | None:
        """The character between the cells of a table; None where it is to be detected."""
        if self.csv_delimiter == "auto":
            return None
        return DELIMITERS.get(self.csv_delimiter, self.csv_delimiter)

    def encoding_for(self, name: str) -> str | None:
        """The codec that the settings request for the file ``name``; None where it is to be detected.

        A rule with a pattern that fits (``old/*.txt=cp1252``) is stronger than one for everything.
        """
        everything = None
        for rule in self.encoding:
            pattern, encoding = _split(rule)
            if not pattern:
                everything = encoding
            elif _fits(name, pattern):
                return None if encoding == "auto" else codec_of(encoding)
        return None if everything in {None, "auto"} else codec_of(str(everything))


def codec_of(label: str) -> str:
    """Python's codec for an encoding as the web calls it (iso-8859-1 is windows-1252 there) or as Python does.

    Raises:
        InputError: there is no such encoding of text.
    """
    known = webencodings.lookup(label)
    if known is not None and known.name == "x-user-defined":
        return "cp1252"  # as the standard has it for a page that declares this
    # "utf-16" means UTF-16 LE on the web; Python's reads the mark and falls back to the same.
    codec = known.codec_info.name if known is not None and known.name != "replacement" else label.strip()
    try:
        if isinstance(b"".decode(codec), str) and isinstance("".encode(codec), bytes):
            return codec
    except (LookupError, ValueError, TypeError):
        pass
    raise InputError(
        f"there is no encoding '{shown(label)}': type a name such as windows-1252, koi8-r, shift_jis, gb18030, "
        "utf-16, or auto"
    )


def label_of(codec: str) -> str:
    """What an encoding is called in reports: the web's name where it has one, else Python's."""
    if codec.startswith("utf-"):
        return codec.removesuffix("-sig").upper()
    name = _WEB_NAMES.get(codec, codec.replace("_", "-"))
    known = webencodings.lookup(name)
    return known.name if known is not None else codec


def _split(rule: str) -> tuple[str, str]:
    pattern, _, encoding = rule.rpartition("=")
    return pattern.strip(), encoding.strip()


def _fits(name: str, pattern: str) -> bool:
    """Whether ``pattern`` is the file, its last parts, a folder above it, or fits one of these with * and ?."""
    parts: Sequence[str] = PurePath(name).parts
    wanted = PurePath(pattern).as_posix()
    beginnings = range(len(parts))
    return any(
        fnmatchcase(PurePath(*parts[first:last]).as_posix(), wanted)
        for first in beginnings
        for last in range(first + 1, len(parts) + 1)
    )
