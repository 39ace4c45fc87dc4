"""Prove properties of the expression that splits a text into words before merging.

The expression is read as an automaton whose states are its single characters (Glushkov 1961). Which state may follow
which decides whether a match can cross a place in a text. Characters are treated in groups: each ASCII character is a
group, and each general category of the others. When a construct is not understood, nothing is proved.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from functools import lru_cache

_CATEGORIES = re.findall("..", "LuLlLtLmLoMnMcMeNdNlNoPcPdPsPePiPfPoSmScSkSoZsZlZpCcCfCoCnCs")
_NEXT_LINE = 128 + len(_CATEGORIES)
"""U+0085, the only control character beyond ASCII that is white space."""
EVERYTHING = (1 << (_NEXT_LINE + 1)) - 1
"""Groups of characters are the bits of an integer."""
_NOT_ASCII = EVERYTHING & ~((1 << 128) - 1)


class Unproved(Exception):
    """The expression contains something that this module does not understand."""


def group_of(char: str) -> int:
    """Return the group of one character."""
    code = ord(char)
    if code < 128:
        return 1 << code
    return 1 << (_NEXT_LINE if code == 0x85 else 128 + _CATEGORIES.index(unicodedata.category(char)))


def groups_of(chars: str) -> int:
    """Return the union of the groups of some characters."""
    groups = 0
    for char in chars:
        groups |= group_of(char)
    return groups


@lru_cache
def category(prefix: str) -> int:
    """Return the groups of all characters whose general category begins with ``prefix``, such as ``L`` or ``Nd``."""
    groups = groups_of("".join(chr(c) for c in range(128) if unicodedata.category(chr(c)).startswith(prefix)))
    for number, name in enumerate(_CATEGORIES):
        if name.startswith(prefix):
            groups |= 1 << (128 + number)
    return groups | (1 << _NEXT_LINE if "Cc".startswith(prefix) else 0)


LETTERS = category("L")
SPACES = groups_of("\t\n\x0b\x0c\r \x85") | (category("Z") & _NOT_ASCII)
NOT_SPACES = EVERYTHING & ~SPACES


@dataclass(frozen=True)
class _Set:
    """The groups of which at least one character may match, and those of which every character does."""

    may: int
    must: int

    def __or__(self, other: _Set) -> _Set:
        return _Set(self.may | other.may, self.must | other.must)

    def inverted(self) -> _Set:
        return _Set(EVERYTHING & ~self.must, EVERYTHING & ~self.may)


@dataclass
class _Part:
    """A part of the expression: the states it can begin and end with.

    ``single``: groups of which it matches one character alone, whatever follows. ``greedy``: what a possessive part
    withholds from the part after it.
    """

    nullable: bool
    first: frozenset[int]
    last: frozenset[int]
    single: int = 0
    greedy: int = 0


@dataclass
class WordPattern:
    """What an expression can match, state by state.

    Raises:
        Unproved: the expression contains something that is not understood.
    """

    expression: str
    _may: list[int] = field(default_factory=list)
    _asserts: set[int] = field(default_factory=set)
    _follow: list[set[int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        try:
            whole = _Parser(self).parse()
        except (IndexError, ValueError, RecursionError) as error:
            raise Unproved(str(error)) from None
        if whole.nullable:
            raise Unproved("it matches nothing")
        self.single = whole.single

    def crosses(self, left: int, right: int) -> bool:
        """Return whether a match may contain a character of ``left`` followed by one of ``right``."""
        return any(
            self._may[state] & right
            for before, groups in enumerate(self._may)
            if groups & left
            for state in self._after(before)
        )

    def looks_beyond(self, left: int) -> bool:
        """Return whether a match that ends with a character of ``left`` may depend on what follows."""
        return any(groups & left and self._looks(state) for state, groups in enumerate(self._may))

    def looks_beyond_after(self, before: int, left: int) -> bool:
        """Return :meth:`looks_beyond` for a match in which a character of ``before`` precedes that of ``left``."""
        return any(
            self._may[state] & left and self._looks(state)
            for first, groups in enumerate(self._may)
            if groups & before
            for state in self._after(first)
        )

    def add(self, groups: int, *, asserts: bool = False) -> int:
        """Add a state and return its number."""
        self._may.append(groups)
        self._follow.append(set())
        if asserts:
            self._asserts.add(len(self._may) - 1)
        return len(self._may) - 1

    def link(self, lasts: frozenset[int], firsts: frozenset[int]) -> None:
        """Let each of ``firsts`` follow each of ``lasts``."""
        for state in lasts:
            self._follow[state] |= firsts

    def _looks(self, state: int) -> bool:
        return bool(self._follow[state] & self._asserts)

    def _after(self, state: int) -> set[int]:
        """Return the states that match a character next, skipping assertions."""
        states: set[int] = set()
        waiting, seen = list(self._follow[state]), set[int]()
        while waiting:
            following = waiting.pop()
            if following in seen:
                continue
            seen.add(following)
            if following in self._asserts:
                waiting += self._follow[following]
            else:
                states.add(following)
        return states


_CLASSES = {
    "s": _Set(SPACES, SPACES),
    "d": _Set(category("Nd"), category("Nd")),
    "w": _Set(
        LETTERS | category("M") | category("N") | category("Pc"), LETTERS | category("Nd") | category("Pc")
    ),
}
_CONTROLS = {"r": "\r", "n": "\n", "t": "\t", "f": "\f", "v": "\v"}
_QUANTIFIER = re.compile(r"(\?|\*|\+|\{(\d*),?(\d*)\})([?+]?)")
_HEXADECIMAL = re.compile(r"x\{([0-9A-Fa-f]+)\}|x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})")
_PROPERTY = re.compile(r"([pP])\{(\^?)([A-Za-z_ ]+)\}")


class _Parser:
    """Recursive descent over the syntax that word patterns use, a subset of Oniguruma's."""

    def __init__(self, pattern: WordPattern) -> None:
        self.pattern = pattern
        self.text = pattern.expression
        self.at = 0
        self.any_case = False

    def parse(self) -> _Part:
        """Parse the whole expression."""
        whole = self._alternatives()
        if self.at < len(self.text):
            raise Unproved("a closing bracket too many")
        return whole

    def _take(self, literal: str) -> bool:
        if self.text.startswith(literal, self.at):
            self.at += len(literal)
            return True
        return False

    def _alternatives(self) -> _Part:
        parts = [self._sequence()]
        while self._take("|"):
            parts.append(self._sequence())
        single = greedy = 0
        for part in parts:
            single, greedy = single | part.single, greedy | part.greedy
        return _Part(
            any(part.nullable for part in parts),
            frozenset().union(*(part.first for part in parts)),
            frozenset().union(*(part.last for part in parts)),
            single,
            greedy,
        )

    def _sequence(self) -> _Part:
        whole = _Part(True, frozenset(), frozenset())
        while self.at < len(self.text) and self.text[self.at] not in "|)":
            part = self._quantified()
            self.pattern.link(whole.last, part.first)
            whole = _Part(
                whole.nullable and part.nullable,
                whole.first | part.first if whole.nullable else whole.first,
                whole.last | part.last if part.nullable else part.last,
                (whole.single if part.nullable else 0)
                | (part.single & ~whole.greedy if whole.nullable else 0),
                whole.greedy | part.greedy,
            )
        return whole

    def _quantified(self) -> _Part:
        part = self._atom()
        while (quantifier := _QUANTIFIER.match(self.text, self.at)) is not None:
            self.at = quantifier.end()
            sign, low, high, manner = quantifier.groups()
            if sign[0] == "{" and not low:
                raise Unproved("an unusual quantifier")
            least = {"?": 0, "*": 0, "+": 1}.get(sign, int(low or 0))
            once = sign == "?" or (sign[0] == "{" and "," not in sign and least == 1) or high == "1"
            # In Ruby's syntax {1,3}+ repeats, elsewhere it is possessive: assume only what holds for both.
            if not once or (sign[0] == "{" and manner):
                self.pattern.link(part.last, part.first)
            if manner == "+":
                greedy = 0
                for state in part.first:
                    greedy |= self.pattern._may[state]
                part.greedy |= greedy
            part = _Part(
                part.nullable or least == 0,
                part.first,
                part.last,
                part.single if least < 2 else 0,
                part.greedy,
            )
        return part

    def _atom(self) -> _Part:
        if self._take("("):
            return self._group()
        if self._take("$"):
            return self._assertion()
        char = self.text[self.at]
        if char in "^*+?{":
            raise Unproved(f"{char} at this place")
        return self._character(self._set_of_class() if char == "[" else self._set_of_one())

    def _character(self, groups: _Set) -> _Part:
        if self.any_case and groups.may & LETTERS:
            groups = _Set(groups.may | LETTERS | category("M"), 0)
        state = frozenset([self.pattern.add(groups.may)])
        return _Part(False, state, state, groups.must)

    def _assertion(self) -> _Part:
        state = frozenset([self.pattern.add(0, asserts=True)])
        return _Part(False, state, state)

    def _group(self) -> _Part:
        any_case = self.any_case
        if self._take("?!") or self._take("?="):
            self._set_of_class() if self.text[self.at] == "[" else self._set_of_one()
            if not self._take(")"):
                raise Unproved("an assertion over more than one character")
            return self._assertion()
        if self._take("?i:"):
            self.any_case = True
        elif not self._take("?:") and self.text.startswith("?", self.at):
            raise Unproved("an unusual group")
        part = self._alternatives()
        if not self._take(")"):
            raise Unproved("an open bracket")
        self.any_case = any_case
        return part

    def _set_of_one(self) -> _Set:
        if self.at >= len(self.text):
            raise Unproved("an end too soon")
        char = self.text[self.at]
        self.at += 1
        if char == "\\":
            return self._escaped()
        if char == ".":
            return _literal("\n").inverted()
        return _literal(char)

    def _escaped(self) -> _Set:
        if (match := _PROPERTY.match(self.text, self.at)) is not None:
            self.at = match.end()
            positive = (match[1] == "p") == (not match[2])
            known = _property(match[3])
            return known if positive else known.inverted()
        if (match := _HEXADECIMAL.match(self.text, self.at)) is not None:
            self.at = match.end()
            return _literal(chr(int(match[1] or match[2] or match[3], 16)))
        char = self.text[self.at : self.at + 1]
        self.at += 1
        if char.lower() in _CLASSES:
            known = _CLASSES[char.lower()]
            return known if char.islower() else known.inverted()
        if char in _CONTROLS:
            return _literal(_CONTROLS[char])
        if not char or char.isalnum():
            raise Unproved(f"\\{char}")
        return _literal(char)

    def _set_of_class(self) -> _Set:
        self.at += 1
        negated, whole = self._take("^"), _Set(0, 0)
        if self.text.startswith("]", self.at):
            raise Unproved("an empty class")
        while not self._take("]"):
            if self.text.startswith(("[", "&&"), self.at):
                raise Unproved("a class in a class")
            begin = self.at
            member = self._set_of_one()
            first = self.text[begin : self.at]
            if (
                self.text.startswith("-", self.at)
                and self.text[self.at + 1 : self.at + 2] != "]"
                and not re.match(r"\\[sSdDwWpP]", first)
            ):
                self.at += 1
                begin = self.at
                self._set_of_one()
                member = _range(_character_of(first), _character_of(self.text[begin : self.at]))
            whole |= member
        return whole.inverted() if negated else whole


def _literal(char: str) -> _Set:
    return _Set(group_of(char), group_of(char) if ord(char) < 128 else 0)


def _character_of(written: str) -> str:
    """Return the character that an expression writes as ``written``."""
    if not written.startswith("\\"):
        return written
    if (match := _HEXADECIMAL.fullmatch(written, 1)) is not None:
        return chr(int(match[1] or match[2] or match[3], 16))
    if written[1] in _CONTROLS:
        return _CONTROLS[written[1]]
    if written[1].isalnum():
        raise Unproved("a range of classes")
    return written[1]


def _range(first: str, last: str) -> _Set:
    ascii_part = groups_of("".join(map(chr, range(ord(first), min(ord(last), 127) + 1))))
    return _Set(ascii_part | (_NOT_ASCII if ord(last) > 127 else 0), ascii_part)


def _property(name: str) -> _Set:
    """Return the set of ``\\p{name}`` for a general category; scripts and other properties may match anything."""
    if len(name) <= 2 and any(known.startswith(name) for known in _CATEGORIES):
        return _Set(category(name), category(name))
    return _Set(EVERYTHING, 0)
