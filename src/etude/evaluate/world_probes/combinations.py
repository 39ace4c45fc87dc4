"""Find the held-out combinations of the stories' world in any text."""

from __future__ import annotations

import re

from etude.data.primer.holdout import (
    HELD_PAIRS,
    HELD_SUMS,
    find_sums,
    find_tellings,
    is_held_out,
    name_objects,
)
from etude.data.primer.lexicon import NUMBER_OF_WORD, OBJECT_FORMS
from etude.evaluate.world_probes.verbs import ENDINGS, VERBS

Combination = tuple[str | int, ...]

_NUMBER = "(" + "|".join(sorted(NUMBER_OF_WORD, key=len, reverse=True)) + r"|\d+)"
_CHANGE = re.compile(
    rf"(?:\bhas|\bare|\bis holding) {_NUMBER} \w+\b[^.]*\. "
    rf"[^.]*?\b(?:gives|gets|brings|takes) (?:her |him )?{_NUMBER}( more)?\b"
)
_BASE = {form: verb[0] for verb in VERBS for form in verb}
_OWN = {ending: verb for verb, ending in ENDINGS.items()}
_TENSED = re.compile(rf"\b({'|'.join(_BASE)}) ({'|'.join(map(re.escape, _OWN))})\b")
_BESIDE = re.compile(r"\b[Tt]he (\w+) beside the (\w+)(?: \w+ the \w+)? (?:was|were)\b")


def held_out_in(text: str) -> set[Combination]:
    """Return every held-out combination in the text, in the forms used by the probes and the stories."""
    combinations: set[Combination] = {("name_object", *pair) for pair in name_objects(text) & HELD_PAIRS}
    combinations |= {
        _sum(*numbers) for numbers in (*find_sums(text), *_changes(text)) if numbers in HELD_SUMS
    }
    if " told " in text:
        combinations |= {("told", *people) for people in find_tellings(text) if is_held_out("told", *people)}
    for match in _TENSED.finditer(text):
        if _OWN[match[2]] != _BASE[match[1]]:
            combinations.add(("tense", _BASE[match[1]], match[2]))
    for match in _BESIDE.finditer(text):
        nouns = [OBJECT_FORMS.get(word) for word in match.groups()]
        if None not in nouns:
            combinations.add(("beside", *(str(noun) for noun in nouns)))
    return combinations


def _sum(a: int, b: int, op: str) -> Combination:
    return ("sum", min(a, b), max(a, b), op) if op == "+" else ("sum", a, b, op)


def _changes(text: str) -> list[tuple[int, int, str]]:
    """Return the implicit sums of a small story: a number, and some more or fewer."""
    if "gives" not in text and "gets" not in text and "brings" not in text and "takes" not in text:
        return []
    return [
        (_value(match[1]), _value(match[2]), "+" if match[3] else "-") for match in _CHANGE.finditer(text)
    ]


def _value(word: str) -> int:
    return int(word) if word.isdigit() else NUMBER_OF_WORD[word]
