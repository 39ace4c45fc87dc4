"""The settings of the readers: the field that holds the text, the encoding, and the delimiter of tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePath
from typing import Literal

import webencodings

from etude.data.corpus.clean import Form
from etude.errors import InputError
from etude.text_settings import DataSettings
from etude.untrusted import shown

_WEB_NAMES = {"cp932": "shift_jis", "cp949": "euc-kr", "big5hkscs": "big5", "cp874": "windows-874"}
DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}


@dataclass(frozen=True)
class ReadingOptions:
    """How to read files; see the settings of the same names in :class:`etude.text_settings.DataSettings`.

    ``examples`` means that each row becomes an example to learn from, whose format is found by its keys; its contents
    are cleaned when it is read, in the form ``normalization``.

    Raises:
        InputError: an unknown encoding.
    """

    text_field: str = "text"
    encoding: tuple[str, ...] = ("auto",)
    csv_delimiter: str = "auto"
    csv_header: Literal["auto"] | bool = "auto"
    normalization: Form = "NFC"
    examples: bool = False

    @classmethod
    def of(cls, data: DataSettings) -> ReadingOptions:
        """Take the options from the settings."""
        return cls(data.text_field, data.encoding, data.csv_delimiter, data.csv_header, data.normalization)

    def __post_init__(self) -> None:
        for rule in self.encoding:
            _, encoding = _split(rule)
            if encoding != "auto":
                codec_of(encoding)

    @property
    def delimiter(self) -> str | None:
        """The character between the cells of a table; None when it is to be detected."""
        if self.csv_delimiter == "auto":
            return None
        return DELIMITERS.get(self.csv_delimiter, self.csv_delimiter)

    def encoding_for(self, name: str) -> str | None:
        """Return the codec that the settings request for the file ``name``; None when it is to be detected.

        A rule with a pattern that matches (``old/*.txt=cp1252``) overrides a rule for all files.
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
    """Return Python's codec for an encoding, by its name on the web (where iso-8859-1 is windows-1252) or in Python.

    Raises:
        InputError: there is no such text encoding.
    """
    known = webencodings.lookup(label)
    if known is not None and known.name == "x-user-defined":
        return "cp1252"  # what the standard prescribes for a page that declares x-user-defined
    # "utf-16" means UTF-16 LE on the web; Python's codec reads the mark and falls back to the same.
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
    """Return the name of an encoding for reports: the web's name if it has one, else Python's."""
    if codec.startswith("utf-"):
        return codec.removesuffix("-sig").upper()
    name = _WEB_NAMES.get(codec, codec.replace("_", "-"))
    known = webencodings.lookup(name)
    return known.name if known is not None else codec


def _split(rule: str) -> tuple[str, str]:
    pattern, _, encoding = rule.rpartition("=")
    return pattern.strip(), encoding.strip()


def _fits(name: str, pattern: str) -> bool:
    """Return whether ``pattern``, with * and ?, matches the file, its last path parts, or a folder above it."""
    parts: Sequence[str] = PurePath(name).parts
    wanted = PurePath(pattern).as_posix()
    beginnings = range(len(parts))
    return any(
        fnmatchcase(PurePath(*parts[first:last]).as_posix(), wanted)
        for first in beginnings
        for last in range(first + 1, len(parts) + 1)
    )
