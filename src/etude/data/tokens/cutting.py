"""Prove, from a tokenizer's own description, where a text may be cut for it.

A tokenizer splits a text into words, by one expression or by several in turn, and encodes each word by itself. An
expression finds its matches from left to right, each from the end of the previous one, so the words after a place
between two matches depend on nothing before it. Two things remain to be proved for each kind of place: the expression
always ends a match there, and no match before it depends on what follows. Then the pieces of a text that is cut at such
places have exactly the words of the whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from etude.data.corpus.cuts import AFTER_LINE, ANY, BEFORE_SPACE, Places
from etude.data.tokens.patterns import MAX_CHARACTERS, PATTERNS
from etude.data.tokens.word_pattern import (
    NOT_SPACES,
    Unproved,
    WordPattern,
    category,
    groups_of,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_NUMERIC, _PUNCTUATION = r"\p{N}", r"[!-/:-@\[-`{-~\p{P}]"
_LETTERS_AND_DIGITS = "0-9A-Za-zÀ-ÖØ-öø-ʯΑ-ΡΣ-ωА-яא-תؠ-ؿف-يअ-हก-ะぁ-ゖァ-ヺ一-龥가-힣"
"""Letters and digits in every version of Unicode that a tokenizer may use."""
_ENDS_WORD = '\t\n !"#$%&(*+,-./:;<=>?@[\\]^_`{|}~'
"""White space and punctuation except the apostrophe, which begins the end of a word such as "it's"."""
_WIDE_ENDS_WORD = "\u3001\u3002\uff0c\uff01\uff1f\uff1b\uff1a\uff09\u300d\u300f"


@dataclass(frozen=True)
class _Kind:
    """A kind of place: the characters on its two sides, and what no special token may contain.

    ``spaced``: the character before the left one is not white space.
    """

    pattern: re.Pattern[str]
    left: int
    right: int
    inside: re.Pattern[str]
    spaced: bool = False


_AFTER_LINE = _Kind(AFTER_LINE, groups_of("\n"), NOT_SPACES, re.compile(r"\n\S"), spaced=True)
_BEFORE_SPACE = _Kind(BEFORE_SPACE, NOT_SPACES, groups_of(" "), re.compile(r"\S "))


def _after_letter(ends: str) -> _Kind:
    letter, end = f"[{_LETTERS_AND_DIGITS}]", f"[{re.escape(ends)}]"
    return _Kind(
        re.compile(f"(?<={letter})(?={end})"),
        category("L") | category("Nd"),
        groups_of(ends),
        re.compile(letter + end),
    )


_USUAL = (_AFTER_LINE, _BEFORE_SPACE)
_OTHERS = (_after_letter(_ENDS_WORD), _after_letter(_WIDE_ENDS_WORD))


def places_of(backend: Tokenizer) -> Places:
    """Return the places at which a text can be cut for a tokenizer; none when nothing can be proved."""
    if getattr(backend.model, "dropout", None):
        return Places(())
    normaliser = _as_json(backend.normalizer)
    if normaliser is not None and normaliser["type"] not in ("NFC", "NFD"):
        return Places(())
    splitters = list(_flat(_as_json(backend.pre_tokenizer)))
    added = backend.get_added_tokens_decoder().values()
    plain = [
        token for token in added if not token.special
    ]  # the tokenizer finds these in text; special ones never
    if any(token.lstrip or token.rstrip or token.single_word for token in plain):
        return Places(())
    if normaliser is None and not plain and _one_by_one(backend, splitters):
        return Places((AFTER_LINE, BEFORE_SPACE), (ANY,))

    def safe(kinds: tuple[_Kind, ...]) -> tuple[re.Pattern[str], ...]:
        apart = [k for k in kinds if not plain or not any(k.inside.search(t.content) for t in added)]
        return tuple(kind.pattern for kind in apart if _is_safe(kind, splitters))

    # Composition changes no white space and joins nothing across it, but it may add a mark to the end of a letter.
    return Places(safe(_USUAL), () if normaliser else safe(_OTHERS))


def _as_json(part: Any) -> dict[str, Any] | None:
    """Return a part of a tokenizer as its JSON."""
    if part is None:
        return None
    state: dict[str, Any] = json.loads(part.__getstate__())
    return state


def _flat(splitter: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    """Yield the pre-tokenizers in the order in which they are applied."""
    if splitter is None:
        return
    if splitter["type"] == "Sequence":
        for part in splitter["pretokenizers"]:
            yield from _flat(part)
    else:
        yield splitter


def _is_safe(kind: _Kind, splitters: list[dict[str, Any]]) -> bool:
    """Return whether one splitter always ends a word at the place, and no earlier one depends on both its sides.

    Later splitters work on each word by itself.
    """
    if any(splitter["type"] == "Metaspace" for splitter in splitters):  # treats the first word differently
        return False
    try:
        for splitter in splitters:
            pattern = _pattern_of(splitter)
            if pattern is None:
                continue
            if not _ends_alike(pattern, kind):
                return False
            if not (kind.left & ~pattern.single) or not (kind.right & ~pattern.single):
                return (
                    True  # one of the two always matches by itself, so no stretch between matches holds both
                )
    except Unproved:
        return False
    return False


def _pattern_of(splitter: dict[str, Any]) -> WordPattern | None:
    """Return the expression that a pre-tokenizer splits by; None when it splits nothing.

    Raises:
        Unproved: another kind of pre-tokenizer, or one that joins its matches to their neighbours.
    """
    name = splitter["type"]
    if name == "ByteLevel" and not splitter.get("add_prefix_space", True):
        return WordPattern(PATTERNS["gpt2"]) if splitter.get("use_regex", True) else None
    if name == "Digits":
        return WordPattern(_NUMERIC if splitter.get("individual_digits") else _NUMERIC + "+")
    if name == "Punctuation" and splitter.get("behavior", "Isolated") == "Isolated":
        return WordPattern(_PUNCTUATION)
    if name == "Split" and splitter["behavior"] in ("Isolated", "Removed"):
        expression = splitter["pattern"]
        return WordPattern(expression.get("Regex") or re.escape(expression["String"]))
    raise Unproved(name)


def _ends_alike(pattern: WordPattern, kind: _Kind) -> bool:
    """Return whether a match that reaches the place ends there, and does so as well when the text ends there."""
    if pattern.crosses(kind.left, kind.right):
        return False
    if not pattern.looks_beyond(kind.left):
        return True
    # A single line end between other characters: an expression such as \s+(?!\S) either matches it or not. If not,
    # another expression matches a line end whatever follows, and no match can be longer.
    return (
        kind.spaced
        and not pattern.looks_beyond_after(NOT_SPACES, kind.left)
        and not (kind.left & ~pattern.single)
    )


def _one_by_one(backend: Tokenizer, splitters: list[dict[str, Any]]) -> bool:
    """Return whether every character is encoded by itself, as without merges."""
    local = all(
        (splitter["type"] == "ByteLevel" and not splitter.get("add_prefix_space", True))
        or splitter["type"] == "Digits"
        or (splitter["type"] == "Split" and splitter["behavior"] == "Isolated")
        for splitter in splitters
    )
    if not local or backend.get_vocab_size(with_added_tokens=False) > MAX_CHARACTERS + 256 + 1:
        return False
    model = _as_json(backend.model) or {}
    alone = ("fuse_unk", "ignore_merges", "continuing_subword_prefix", "end_of_word_suffix")
    return model.get("type") == "BPE" and not model.get("merges") and not any(map(model.get, alone))
