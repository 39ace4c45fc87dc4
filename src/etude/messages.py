"""Words that messages share: commands that can be pasted into a shell, and the names that a mistyped one may mean."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher, get_close_matches
from pathlib import PurePath

ALIKE, ALIKE_STEMS = 0.75, 0.6
"""Least similarity (difflib's ratio) of two names; of two file names without their endings, where these are equal."""


def command(*words: object) -> str:
    """Return ``etude WORDS...`` as it can be typed: every word is quoted where a shell needs it."""
    return " ".join(["etude", *map(quoted, words)])


def quoted(word: object) -> str:
    """Return one word for a POSIX shell. What cannot be printed is escaped, as bash, zsh and POSIX 2024 read it."""
    text = str(word)
    if isinstance(word, PurePath) and text.startswith("-"):
        text = f"./{text}"  # otherwise it would be taken for an option
    if text.isprintable():
        return shlex.quote(text)
    return "$'" + "".join(map(_escaped, text)) + "'"


def _escaped(character: str) -> str:
    if character in "\\'":
        return f"\\{character}"
    if character.isprintable():
        return character
    # A lone surrogate stands for a byte that is no UTF-8.
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))


def either(names: Sequence[str]) -> str:
    """Return the names as alternatives: ``a, b or c``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def nearest_file(name: str, names: Iterable[str]) -> str | None:
    """Return the file name that ``name`` probably means, or None where no name is similar.

    Names are compared without their endings: two names are not alike because both end in ``.txt``.
    """
    stem, ending = os.path.splitext(name)
    best, found = 0.0, None
    for candidate in names:
        other, other_ending = os.path.splitext(candidate)
        same = ending.casefold() == other_ending.casefold()
        likeness = _likeness(stem, other)
        if likeness >= (ALIKE_STEMS if same else ALIKE) and likeness + 0.1 * same > best:
            best, found = likeness + 0.1 * same, candidate
    return found


def nearest_key(key: str, known: Iterable[str]) -> str | None:
    """Return the dotted setting that ``key`` probably means, or None where none is similar.

    What stands behind the last dot is compared: two settings are not alike because both are of one section. A name may
    also be given in other words (``n_layer`` for ``num_hidden_layers``, ``learning_rate`` for ``lr``).
    """
    section, _, leaf = key.rpartition(".")
    best, found = 0.0, None
    for candidate in known:
        other_section, _, other = candidate.rpartition(".")
        likeness = _likeness(leaf, other)
        if _initials(leaf) == other or (likeness < ALIKE_STEMS and _share_a_word(leaf, other)):
            likeness = max(likeness, ALIKE_STEMS)
        if likeness >= ALIKE_STEMS and likeness + 0.1 * (section == other_section) > best:
            best, found = likeness + 0.1 * (section == other_section), candidate
    return found


def suggest_key(key: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown setting: the one that was probably meant, or how to see all."""
    found = nearest_key(key, known)
    return "`etude settings` lists all of them" if found is None else f"did you mean '{found}'?"


def suggest_name(name: str, names: Sequence[str]) -> str:
    """Return the end of a message about an unknown name: the most similar of ``names``, or the first of them."""
    similar = get_close_matches(name, names, n=1, cutoff=ALIKE_STEMS)
    return f"did you mean '{similar[0]}'?" if similar else f"the first is '{names[0]}'"


def _likeness(a: str, b: str) -> float:
    return SequenceMatcher(None, a.casefold(), b.casefold()).ratio()


def _initials(name: str) -> str:
    words = name.split("_")
    return "".join(word[:1] for word in words) if len(words) > 1 else ""


def _share_a_word(a: str, b: str) -> bool:
    """Whether a word of four letters or more stands in both, in the singular or the plural."""
    words = [{word.removesuffix("s") for word in name.split("_") if len(word) >= 4} for name in (a, b)]
    return bool(words[0] & words[1])
