"""Bound how much longer an untrusted tokenizer.json can make a text: rules that rewrite text multiply."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable
from typing import Any

from etude.data.tokens.word_pattern import Unproved, WordPattern

MOST_GROWTH = 1_000
"""Limit on the characters that one character may become. Published tokenizers reach 18 (NFKC, an Arabic ligature)."""


def growth_of(part: Any) -> float:
    """Return the most characters that a normaliser, pre-tokenizer or decoder, as JSON, makes from one."""
    if not isinstance(part, dict):
        return 1.0
    if part.get("type") == "Sequence":
        steps = [step for key in ("normalizers", "pretokenizers", "decoders") for step in part.get(key, [])]
        return math.prod(map(growth_of, steps))
    rule = _RULES.get(str(part.get("type")))
    return 1.0 if rule is None else rule(part)


def _replaced(part: dict[str, Any]) -> float:
    """Return the growth of a replacement; its expression may match even where there is no text."""
    pattern, content = part.get("pattern"), len(str(part.get("content", "")))
    rule_pattern = pattern if isinstance(pattern, dict) else {"String": pattern}
    if rule_pattern.get("String"):
        return max(1.0, content / len(str(rule_pattern["String"])))
    try:
        WordPattern(str(rule_pattern.get("Regex", "")))
    except Unproved:
        return 1.0 + content
    return max(1.0, float(content))


def _mapped(part: dict[str, Any]) -> float:
    """Return the growth of a SentencePiece table, which maps a character to one of the texts after its index."""
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
