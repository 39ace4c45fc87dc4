"""Combinations that the corpus never contains, so that probes can ask for what was never seen.

What a text *contains*, for each kind:

- ``("name_object", name, object)``: the name and the object, in singular or plural, occur anywhere in the same
  document.
- ``("sum", a, b, op)``: the document states or asks the sum in digits or words (``7 + 5``, ``seven plus
  five``, ``seven and five make``, ``take five from``), or its story adds or takes away these counts.
  A sum with ``+`` is held out in both orders.
- ``("told", teller, listener, owner, object)``: a person tells another that a third has the object.
- ``("kept", owner, object, place)``: the owner's object lies at the place at some moment of the story, or
  one sentence has all three words.

Every name_object pair within a held-out nested fact does occur: only the combination is new.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache
from hashlib import blake2b

from etude.data.primer.lexicon import NAMES, NUMBER_OF_WORD, OBJECT_FORMS, OBJECTS, PLACE_NOUNS

KINDS = ("name_object", "sum", "told", "kept")
LARGEST_ADDEND = 20
ONE_IN = 8  # one eighth of every set of combinations is held out


def is_held_out(kind: str, *items: str | int) -> bool:
    """Return True if the combination never occurs; a pure function of its words, the same everywhere.

    Raises ValueError for an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}; the kinds are {', '.join(KINDS)}")
    if kind == "sum" and items[2] == "+":
        items = (*sorted(items[:2], key=int), "+")
    digest = blake2b("\x1f".join(map(str, (kind, *items))).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") % ONE_IN == 0


def sums() -> Iterator[tuple[int, int, str]]:
    """Return all sums: a + b and a - b with a and b up to 20 and no negative result."""
    for a in range(LARGEST_ADDEND + 1):
        for b in range(LARGEST_ADDEND + 1):
            yield a, b, "+"
            if b <= a:
                yield a, b, "-"


HELD_PAIRS = frozenset((n, o) for n in NAMES for o in OBJECTS if is_held_out("name_object", n, o))
HELD_SUMS = frozenset(item for item in sums() if is_held_out("sum", *item))


@cache
def _held_kept() -> frozenset[tuple[str, str, str]]:
    pairs = ((name, noun) for name in NAMES for noun in OBJECTS if (name, noun) not in HELD_PAIRS)
    return frozenset(
        (*pair, place) for pair in pairs for place in PLACE_NOUNS if is_held_out("kept", *pair, place)
    )


def kept_held_out(owner: str, noun: str, place: str) -> bool:
    """Return ``is_held_out("kept", ...)`` from a table that is made once, for thousands of calls per second."""
    return (owner, noun, place) in _held_kept()


def held_out_items(kind: str) -> Iterator[tuple[str | int, ...]]:
    """Return every combination of this kind that never occurs, in a fixed order."""
    if kind == "name_object":
        yield from sorted(HELD_PAIRS)
    elif kind == "sum":
        yield from sorted(HELD_SUMS)
    elif kind == "kept":
        yield from sorted(_held_kept())
    elif kind == "told":
        for teller in NAMES:
            for listener in NAMES:
                for owner in NAMES:
                    if len({teller, listener, owner}) == 3:
                        yield from _told_items(teller, listener, owner)
    else:
        raise ValueError(f"unknown kind {kind!r}; the kinds are {', '.join(KINDS)}")


def _told_items(*people: str) -> Iterator[tuple[str, ...]]:
    for noun in OBJECTS:
        if any((name, noun) in HELD_PAIRS for name in people):
            continue
        if is_held_out("told", *people, noun):
            yield (*people, noun)


_SPACES = str.maketrans(dict.fromkeys(".,!?\"';:()\n-", " "))
_SENTENCE_END = re.compile(r"[.!?\n]")
_NAME_SET, _PLACE_SET = frozenset(NAMES), frozenset(PLACE_NOUNS)
_OBJECT_SET = frozenset(OBJECT_FORMS)
_NUMBER_TOKENS = (
    frozenset(NUMBER_OF_WORD) | {word.capitalize() for word in NUMBER_OF_WORD} | set(map(str, range(100)))
)
_NUMBER = "(" + "|".join([r"\d+", *sorted(NUMBER_OF_WORD, key=len, reverse=True)]) + ")"
_AMOUNT = _NUMBER + r"(?: [a-z]+)?"
# Each form with its signs; one of them must be in the text before a search is worthwhile.
_SUM_FORMS = (
    ((" plus ", " + "), re.compile(rf"\b{_NUMBER} (?:\+|plus) {_NUMBER}\b"), "+"),
    ((" minus ", " - "), re.compile(rf"\b{_NUMBER} (?:-|minus) {_NUMBER}\b"), "-"),
    ((" make ", " makes "), re.compile(rf"\b{_AMOUNT} and {_AMOUNT} makes? "), "+"),
    ((" is ", " are "), re.compile(rf"\b{_NUMBER} and {_NUMBER} (?:is|are) "), "+"),
    ((" more",), re.compile(rf"\b{_AMOUNT} and {_AMOUNT} more\b"), "+"),
    ((" take away ",), re.compile(rf"\b{_AMOUNT} take away {_NUMBER}\b"), "-"),
)
_FROM = re.compile(rf"\btake {_NUMBER} from {_NUMBER}\b")
_TELLINGS = (
    re.compile(r"\b([A-Z]\w+) told ([A-Z]\w+) that ([A-Z]\w+) (?:had|has) the (?:[\w-]+ )?(\w+)"),
    re.compile(r'"(?P<owner>[A-Z]\w+) has the (?:[\w-]+ )?(?P<noun>\w+)," ([A-Z]\w+) told ([A-Z]\w+)'),
)


def _value(word: str) -> int:
    return int(word) if word.isdigit() else NUMBER_OF_WORD[word]


def find_sums(text: str) -> list[tuple[int, int, str]]:
    """Return every sum that the text states or asks in digits or words."""
    lower = text.lower()
    found = [
        (_value(m[1]), _value(m[2]), op)
        for signs, pattern, op in _SUM_FORMS
        if any(sign in lower for sign in signs)
        for m in pattern.finditer(lower)
    ]
    if "take " in lower:
        found += [(_value(m[2]), _value(m[1]), "-") for m in _FROM.finditer(lower)]
    return found


def find_tellings(text: str) -> list[tuple[str, str, str, str]]:
    """Return every (teller, listener, owner, object) that the text states in one of the two forms of telling."""
    told, quoted = _TELLINGS
    found = [(m[1], m[2], m[3], OBJECT_FORMS.get(m[4], m[4])) for m in told.finditer(text)]
    for m in quoted.finditer(text):
        found.append((m[3], m[4], m["owner"], OBJECT_FORMS.get(m["noun"], m["noun"])))
    return found


def name_objects(text: str) -> set[tuple[str, str]]:
    """Return every (name, object) of which the text contains both words."""
    words = set(text.translate(_SPACES).split())
    nouns = {OBJECT_FORMS[word] for word in words & _OBJECT_SET}
    return {(name, noun) for name in words & _NAME_SET for noun in nouns}


def _kept_in_sentence(text: str, pairs: Iterable[tuple[str, str]], places: Iterable[str]) -> bool:
    suspects = [(n, o, p) for n, o in pairs for p in places if kept_held_out(n, o, p)]
    if not suspects:
        return False
    for sentence in _SENTENCE_END.split(text):
        for name, noun, place in suspects:
            if place in sentence and name in sentence:
                words = set(sentence.translate(_SPACES).split())
                if place in words and name in words and any(OBJECT_FORMS.get(word) == noun for word in words):
                    return True
    return False


def contains_held_out(text: str) -> bool:
    """Return True if the text contains any held-out combination."""
    words = set(text.translate(_SPACES).split())
    nouns = {OBJECT_FORMS[word] for word in words & _OBJECT_SET}
    pairs = [(name, noun) for name in words & _NAME_SET for noun in nouns]
    for pair in pairs:
        if pair in HELD_PAIRS:
            return True
    if pairs and _kept_in_sentence(text, pairs, words & _PLACE_SET):
        return True
    if not words.isdisjoint(_NUMBER_TOKENS) and any(is_held_out("sum", *item) for item in find_sums(text)):
        return True
    return "told" in words and any(is_held_out("told", *item) for item in find_tellings(text))
