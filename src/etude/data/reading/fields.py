"""Extract the text of a row: one field, a nested field, several fields, or lists of strings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from etude.data.reading.piece import Unusable

_MOST_SHOWN = 12
_MISSING = object()
BETWEEN_FIELDS = "\n\n"
BETWEEN_STRINGS = "\n"


def names_in(text_field: str) -> list[str]:
    """Return the single fields of ``data.text_field``: ``title, body`` are two."""
    return [name for name in (part.strip() for part in text_field.split(",")) if name]


def text_of(row: Mapping[str, Any], text_field: str) -> str:
    """Return the text of a row.

    ``text_field`` names a field; or joins names by dots, which lead into objects and through lists
    (``messages.content``); or lists several of these with commas, whose texts become paragraphs. A field with exactly
    this name comes first, so that names with dots and commas can be chosen as well. Of several fields, those that a row
    lacks are skipped.

    Raises:
        Unusable: none of the fields exists, all are null, or one is neither a string nor a list of strings.
    """
    if text_field in row:
        values = [row[text_field]]
    else:
        values = [_inside(row, name) for name in names_in(text_field)]
        values = [value for value in values if value is not _MISSING]
        if not values:
            raise missing(text_field, list(shown_fields(row)))
    texts = ["" if value is None else _as_text(value, text_field) for value in values]
    if all(value is None for value in values):
        raise Unusable("row without text")
    return BETWEEN_FIELDS.join(text for text in texts if text)


def missing(text_field: str, fields: list[str], more: str = "") -> Unusable:
    """Return the error for a row or table without the field."""
    known = ", ".join(f"'{field}'" for field in fields[:_MOST_SHOWN]) or "none"
    return Unusable(
        "no text field",
        f"no '{text_field}'; fields there: {known}; choose with --set data.text_field=NAME{more}",
    )


def shown_fields(row: Mapping[str, Any], prefix: str = "", depth: int = 2) -> Iterator[str]:
    """Yield the names that can be chosen in a row, as dotted paths."""
    for name, value in row.items():
        inner = value[0] if isinstance(value, list) and value else value
        if depth and isinstance(inner, Mapping) and inner:
            yield from shown_fields(inner, f"{prefix}{name}.", depth - 1)
        else:
            yield f"{prefix}{name}"


def _inside(value: Any, path: str) -> Any:
    """Return the value at a dotted path; for a list, the list of the values in its entries."""
    if isinstance(value, list):
        values = [_inside(entry, path) for entry in value if entry is not None]
        values = [entry for entry in values if entry is not _MISSING]
        return values if values else _MISSING
    if not isinstance(value, Mapping):
        return _MISSING
    if path in value:
        return value[path]
    first, _, rest = path.partition(".")
    return _inside(value[first], rest) if rest and first in value else _MISSING


def _as_text(value: Any, text_field: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(entry, str | list) or entry is None for entry in value):
        return BETWEEN_STRINGS.join(_as_text(entry, text_field) for entry in value if entry is not None)
    kind = "a list that holds more than strings" if isinstance(value, list) else type(value).__name__
    raise Unusable("text is not a string", f"'{text_field}' holds {kind}")
