"""Read a settings file: TOML in any Unicode encoding, with or without a byte order mark."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from etude.errors import InputError
from etude.messages import either
from etude.untrusted import MAX_SETTINGS_BYTES, marked_encoding, read_plain, shown

_MOST_PARSING = 10_000_000
"""Most work for the parser: it takes time quadratic in the dots of a key. This sum of squares takes about a second."""
_BACKSLASH_IN_QUOTES = re.compile(r'"([^"]*\\[^"]*)"')
_MANGLED_PATH = re.compile(r"(?:[A-Za-z]:|\\).*[\b\t\n\f\r\x1b]", re.DOTALL)
"""A Windows path in which TOML read a backslash as an escape, such as ``C:\\new``, which then has a line end."""
_AT_LINE = re.compile(r"\(at line (\d+), column \d+\)")


def read_toml(file: Path) -> dict[str, Any]:
    """Return the tables of a TOML file.

    Raises:
        InputError: the file is missing, unreadable, not text, or not TOML.
    """
    try:
        text = _decoded(read_plain(file, MAX_SETTINGS_BYTES), file)
    except FileNotFoundError:
        raise InputError(f"no settings file at {file}: check the path after --config") from None
    except OSError as error:
        raise InputError(f"cannot read the settings file {file}: {error.strerror or error}") from None
    if sum(line.count(".") ** 2 for line in text.split("\n")) > _MOST_PARSING:
        raise InputError(f"{file} is not a settings file: a line has thousands of dots; check the path")
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        location = _AT_LINE.search(str(error))
        if location and (advice := escape_advice(text.split("\n")[int(location[1]) - 1])):
            raise InputError(f"{file}, line {location[1]}: {advice}") from None
        raise InputError(f"{file} is not valid TOML: {shown(str(error))}") from None


def escape_advice(line: str) -> str:
    """Return advice for a backslash between double quotes in ``line``; empty if there is none."""
    match = _BACKSLASH_IN_QUOTES.search(line)
    return "" if match is None else _advice(match[1])


def mangled_path_advice(path: str) -> str:
    """Return the same advice for a Windows path in which backslashes were read as escapes; empty for other paths."""
    if not _MANGLED_PATH.match(path):
        return ""
    escapes = zip("\b\t\n\f\r\x1b", "btnfre", strict=True)
    return _advice(path.translate({ord(character): f"\\{letter}" for character, letter in escapes}))


def _advice(path: str) -> str:
    """Return how to write a path with backslashes in TOML."""
    plain = path.replace("\\\\", "\\")
    forward = plain.replace("\\", "/")
    return (
        "a backslash between double quotes starts an escape: write the path in single quotes, "
        f"'{shown(plain)}', or with forward slashes, \"{shown(forward)}\""
    )


def _decoded(content: bytes, file: Path) -> str:
    """Decode the content of ``file``: by its byte order mark, as UTF-16 if it has NUL bytes, else as UTF-8."""
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


def recipe_file(name: str) -> Path:
    """Return the settings file of a study that is part of the package.

    Raises:
        InputError: no recipe has this name.
    """
    folder = Path(__file__).parent / "recipes"
    names = sorted(file.stem for file in folder.glob("*.toml"))
    if name not in names:
        raise InputError(f"there is no recipe '{shown(name)}': choose {either(names)}")
    return folder / f"{name}.toml"
