"""Parse settings as the user types them, and describe invalid ones in one line."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from etude.errors import InputError
from etude.messages import suggest_key
from etude.settings_file import escape_advice, mangled_path_advice
from etude.untrusted import shown

_PATHS = ("data.sources", "run.folder", "tokenizer.kind")
"""Settings whose values may be paths."""


def refuse_unknown(keys: Sequence[str], known: Sequence[str]) -> None:
    """Raise InputError for a key that is not ``known``; the message suggests the most similar one."""
    for key in keys:
        if key not in known:
            raise InputError(f"unknown setting '{shown(key)}': {suggest_key(key, known)}")


def parse_override(text: str, known: Sequence[str]) -> tuple[str, Any]:
    """Return the key and the value of ``KEY=VALUE``. A value that is not valid TOML is taken as a string.

    Raises:
        InputError: ``text`` has no ``=``, or the key is not ``known``.
    """
    key, separator, raw = text.partition("=")
    key = key.strip()
    if not separator:
        raise InputError(f"--set takes KEY=VALUE, such as train.lr=3e-4; got '{shown(text)}'")
    refuse_unknown([key], known)
    try:
        value = tomllib.loads(f"value = {raw.strip()}")["value"]
    except (ValueError, RecursionError):  # not TOML, or nested too deeply
        value = raw.strip()
        if key in _PATHS and value[:1] in ("[", '"') and (advice := escape_advice(value)):
            raise InputError(f"setting '{key}': {advice}") from None
    if isinstance(value, list):
        value = tuple(value)
    if key == "data.sources" and isinstance(value, str):
        value = (value,)
    return key, value


def require_text(key: str, value: Any) -> None:
    """Raise InputError for bytes that are not UTF-8, and for a Windows path whose backslashes were read as escapes."""
    for text in value if isinstance(value, list | tuple) else [value]:
        if not isinstance(text, str):
            continue
        if key in _PATHS and (advice := mangled_path_advice(text)):
            raise InputError(f"setting '{key}': {advice}")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:  # Python represents arguments that are not UTF-8 with lone surrogates
            file_advice = "rename it, or pipe it in: etude train - < FILE"
            advice = file_advice if key == "data.sources" else "type it in UTF-8"
            raise InputError(
                f"setting '{shown(key)}' has bytes that are not UTF-8 ('{shown(text)}'): {advice}"
            ) from None


def explain(error: ValidationError, known: Sequence[str]) -> str:
    """Return the first problem of a validation error, as one line."""
    first = error.errors()[0]
    # pydantic adds the tried alternatives to the path of a value.
    location = [str(part) for part in first["loc"] if not str(part).startswith(("literal[", "constrained-"))]
    key = ".".join(location[:2])
    if first["type"] == "extra_forbidden":
        return f"unknown setting '{shown(key)}': {suggest_key(key, known)}"
    # For a type such as "int or 'auto'" pydantic reports a problem for each alternative: prefer that of the number.
    same_key = [e for e in error.errors() if e["loc"][:2] == first["loc"][:2]]
    useful = next((e for e in same_key if e["type"] != "literal_error"), first)
    message = useful["msg"].lower()
    if any(e["type"] == "literal_error" and e["ctx"]["expected"] == "'auto'" for e in same_key):
        message += ", or 'auto'"
    given = first.get("input")
    value = shown(repr(given) if isinstance(given, str) else given)
    return f"setting '{shown(key)}' cannot be {value}: {shown(message)}"
