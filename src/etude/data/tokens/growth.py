"""How much longer a tokenizer.json can make a text: rules that rewrite text multiply, and a stranger wrote them."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable
from typing import Any

from etude.data.tokens.word_pattern import Unproved, WordPattern

MOST_GROWTH = 1_000
"""Characters that one character may become. Published tokenizers reach 18 (by NFKC, for one Arabic ligature)."""


def growth_of(part: Any) -> float:
    """The most characters that a normaliser, pre-tokenizer or decoder, as JSON, makes of one."""
    if not isinstance(part, dict):
        return 1.0
    if part.get("type") == "Sequence":
        steps = [step for key in ("normalizers", "pretokenizers", "decoders") for step in part.get(key, [])]
        return math.prod(map(growth_of, steps))
    rule = _RULES.get(str(part.get("type")))
    return 1.0 if rule is None else rule(part)


def _replaced(part: dict[str, Any]) -> float:
    """A text is replaced by one that may be longer; an expression may match where there is nothing at all."""
    pattern, content = part.get("pattern"), len(str(part.get("content", "")))
    stated = pattern if isinstance(pattern, dict) else {"String": pattern}
    if stated.get("String"):
        return max(1.0, content / len(str(stated["String"])))
    try:
        WordPattern(str(stated.get("Regex", "")))
    except Unproved:
        return 1.0 + content
    return max(1.0, float(content))


def _mapped(part: dict[str, Any]) -> float:
    """A table of SentencePiece: a character becomes one of the texts that stand behind its index."""
    try:
        table = base64.b64decode(str(part.get("precompiled_charsmap") or ""))
    except (binascii.Error, ValueError):
        return 1.0
    texts = table[4 + int.from_bytes(table[:4], "little") :]
    return max(1.0, float(max(map(len, texts.split(b"\0")))))


_RULES: dict[str, Callable[[dict[str, Any]], float]] = {
    "Replace": _replaced,
    "Precompiled": _mapped,
    "Prepend": lambda part: 1.0 + len(str(part.get("prepend", ""))),
    "NFKC": lambda _: 18.0,
    "NFKD": lambda _: 18.0,
    "NFD": lambda _: 4.0,
    "NFC": lambda _: 3.0,
}
