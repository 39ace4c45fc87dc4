"""Parts of messages: commands that can be pasted into a shell, and "did you mean" suggestions for mistyped names."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher, get_close_matches
from pathlib import PurePath

ALIKE, ALIKE_STEMS = 0.75, 0.6
"""Least similarity (difflib's ratio) for a suggestion: of file names with different endings; of all other names."""


def command(*words: object) -> str:
    """Return the shell command ``etude WORDS...``, with words quoted as needed."""
    return " ".join(["etude", *map(quoted, words)])


def quoted(word: object) -> str:
    """Quote a word for a POSIX shell. Characters that cannot be printed become escapes of bash, zsh and POSIX 2024."""
    text = str(word)
    if isinstance(word, PurePath) and text.startswith("-"):
        text = f"./{text}"  # otherwise the path would be parsed as an option
    if text.isprintable():
        return shlex.quote(text)
    return "$'" + "".join(map(_escaped, text)) + "'"


def _escaped(character: str) -> str:
    """Return a character as it is written between ``$'`` and ``'``."""
    if character in "\\'":
        return f"\\{character}"
    if character.isprintable():
        return character
    # In a file name, Python represents a byte that is not UTF-8 as a lone surrogate.
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))


def either(names: Sequence[str]) -> str:
    """Join names as alternatives: ``a, b or c``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def nearest_file(name: str, names: Iterable[str]) -> str | None:
    """Return the file name that ``name`` probably means; None if none is similar.

    Names are compared without their endings: a common ``.txt`` does not make two names similar.
    """
    stem, ending = os.path.splitext(name)
    best_score, nearest = 0.0, None
    for candidate in names:
        other, other_ending = os.path.splitext(candidate)
        same_ending = ending.casefold() == other_ending.casefold()
        similarity = _similarity(stem, other)
        # Of two equally similar stems, prefer the one with the same ending.
        score = similarity + 0.1 * same_ending
        if similarity >= (ALIKE_STEMS if same_ending else ALIKE) and score > best_score:
            best_score, nearest = score, candidate
    return nearest


def nearest_key(key: str, known: Iterable[str]) -> str | None:
    """Return the dotted setting that ``key`` probably means; None if none is similar.

    Only the parts after the last dot are compared: a common section does not make two settings similar. Other wordings
    count as similar too (``n_layer`` for ``num_hidden_layers``, ``learning_rate`` for ``lr``).
    """
    section, _, leaf = key.rpartition(".")
    best_score, nearest = 0.0, None
    for candidate in known:
        other_section, _, other = candidate.rpartition(".")
        similarity = _similarity(leaf, other)
        if _initials(leaf) == other or (similarity < ALIKE_STEMS and _share_a_word(leaf, other)):
            similarity = max(similarity, ALIKE_STEMS)
        # Of two equally similar names, prefer the one in the same section.
        score = similarity + 0.1 * (section == other_section)
        if similarity >= ALIKE_STEMS and score > best_score:
            best_score, nearest = score, candidate
    return nearest


def suggest_key(key: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown setting: a suggestion, or the command that lists all settings."""
    nearest = nearest_key(key, known)
    return "`etude settings` lists all of them" if nearest is None else f"did you mean '{nearest}'?"


def suggest_name(name: str, names: Sequence[str]) -> str:
    """Return the end of a message about an unknown name: the most similar of ``names``, or the first as an example."""
    similar = get_close_matches(name, names, n=1, cutoff=ALIKE_STEMS)
    return f"did you mean '{similar[0]}'?" if similar else f"the first is '{names[0]}'"


def _similarity(a: str, b: str) -> float:
    """Return difflib's ratio of two names without regard to case: 0 to 1, and 0 where it could not be a suggestion."""
    matcher = SequenceMatcher(None, a.casefold(), b.casefold())
    # The ratio takes time in proportion to the product of the lengths; its bound by the lengths takes none.
    return matcher.ratio() if matcher.real_quick_ratio() >= ALIKE_STEMS else 0.0


def _initials(name: str) -> str:
    """Return the first letters of a name's words ("lr" of "learning_rate"); empty for a single word."""
    words = name.split("_")
    return "".join(word[:1] for word in words) if len(words) > 1 else ""


def _share_a_word(a: str, b: str) -> bool:
    """Return whether two names share a word of at least four letters, in the singular or the plural."""
    words = [{word.removesuffix("s") for word in name.split("_") if len(word) >= 4} for name in (a, b)]
    return bool(words[0] & words[1])
