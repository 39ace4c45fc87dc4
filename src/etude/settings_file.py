"""Reads a settings file as people write it: TOML in any Unicode encoding, with or without a byte order mark."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from etude.errors import InputError
from etude.untrusted import MAX_SETTINGS_BYTES, marked_encoding, read_plain, shown

_MOST_PARSING = 10_000_000
"""Sum of the squares of the dots in a line: the parser's effort with a dotted key, of which a second is enough."""
_BACKSLASH_IN_QUOTES = re.compile(r'"([^"]*\\[^"]*)"')
_MANGLED_PATH = re.compile(r"(?:[A-Za-z]:|\\).*[\b\t\n\f\r\x1b]", re.DOTALL)
"""A Windows path of whose backslashes one began an escape: ``C:\\new`` with a line end in it."""
_AT_LINE = re.compile(r"\(at line (\d+), column \d+\)")


def read_toml(file: Path) -> dict[str, Any]:
    """Return the tables of a TOML file.

    Raises:
        InputError: it is missing, unreadable, not text, or not TOML.
    """
    try:
        text = _decoded(read_plain(file, MAX_SETTINGS_BYTES), file)
    except FileNotFoundError:
        raise InputError(f"no settings file at {file}: check the path after --config") from None
    except OSError as error:
        raise InputError(f"cannot read the settings file {file}: {error.strerror or error}") from None
    if sum(line.count(".") ** 2 for line in text.split("\n")) > _MOST_PARSING:
        raise InputError(f"{file} is not a settings file: it has a line of thousands of dots; check the path")
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        where = _AT_LINE.search(str(error))
        if where and (advice := escape_advice(text.split("\n")[int(where[1]) - 1])):
            raise InputError(f"{file}, line {where[1]}: {advice}") from None
        raise InputError(f"{file} is not valid TOML: {shown(str(error))}") from None


def escape_advice(line: str) -> str:
    """Return what to type instead of a backslash between double quotes, or nothing where ``line`` has none."""
    found = _BACKSLASH_IN_QUOTES.search(line)
    return "" if found is None else _advice(found[1])


def mangled_path_advice(path: str) -> str:
    """Return the same for a Windows path some of whose backslashes were read as escapes; nothing for another path."""
    if not _MANGLED_PATH.match(path):
        return ""
    escapes = zip("\b\t\n\f\r\x1b", "btnfre", strict=True)
    return _advice(path.translate({ord(character): f"\\{letter}" for character, letter in escapes}))


def _advice(path: str) -> str:
    plain = path.replace("\\\\", "\\")
    forward = plain.replace("\\", "/")
    return (
        "a backslash between double quotes begins an escape: write the path in single quotes, "
        f"'{shown(plain)}', or with forward slashes, \"{shown(forward)}\""
    )


def _decoded(content: bytes, file: Path) -> str:
    encoding = marked_encoding(content)
    if encoding is None and b"\0" in content[:4]:  # UTF-16 without a mark: the first characters are ASCII
        encoding = "utf-16-be" if content[:1] == b"\0" else "utf-16-le"
    try:
        return content.decode(encoding or "utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"cannot read the settings file {file}: line {line} has a byte ({content[error.start]:#04x}) that is not "
            f"{error.encoding.upper()}: save the file as UTF-8"
        ) from None
