"""Which held-out problems of the task mixture a text contains, whoever wrote it."""

from __future__ import annotations

import re

from etude.data.tasks.brackets import block_keys
from etude.data.tasks.lookups import chain_key, cipher_key, pairs_key
from etude.data.tasks.people import PEOPLE, QUESTIONS, question_key
from etude.data.tasks.problem import Key, is_held_out
from etude.data.tasks.strings import LETTERS, counted_key, string_key
from etude.data.tasks.sums import LARGEST, sum_held_out, sum_key

_STRING = re.compile(r"(?:Copy|Turn round): ((?:[a-z] )*[a-z])\.")
_LETTERS = re.compile(r"Letters: ((?:[a-z] )*[a-z])\.")
_PAIRS = re.compile(r"Remember: ((?:[a-z] is \d, )*[a-z] is \d)\.")
_CHAIN = re.compile(r"Chain: ((?:[a-z] to [a-z], )*[a-z] to [a-z])\.")
_CIPHER = re.compile(r"Cipher: ((?:[a-z] to [a-z], )*[a-z] to [a-z])\. Now ([a-z] to [a-z])\b")
_BRACKETS = re.compile(r"Brackets: ([()\[\] ]+)")
_SUM = re.compile(r"\b(\d{1,2}) ?(?:\+|plus) ?(\d{1,2})\b")
_BY_QUESTION = {
    question: (re.compile(r"([A-Z]\w+ [A-Z]\w+)".join(map(re.escape, form.strip().split("{}")))), by)
    for question, (form, by) in QUESTIONS.items()
}
_PERSON = {getattr(person, by): person for person in PEOPLE for by in ("name", "house")}


def held_out_in(text: str) -> set[Key]:
    """The keys of every held-out problem that the text states, asks or shows."""
    found: set[Key] = set()
    if ": " in text:
        found = {key for key in _listed(text) if is_held_out(key)}
    if "?" in text:
        found |= {key for key in _asked(text) if is_held_out(key)}
    if "plus" in text or "+" in text:
        for match in _SUM.finditer(text):
            a, b = int(match[1]), int(match[2])
            if max(a, b) <= LARGEST and sum_held_out(a, b):
                found.add(sum_key(a, b))
    return found


def _listed(text: str) -> set[Key]:
    found = {string_key(match[1].replace(" ", "")) for match in _STRING.finditer(text)}
    found |= {counted_key(match[1].replace(" ", "")) for match in _LETTERS.finditer(text)}
    for match in _BRACKETS.finditer(text):
        found |= _in_brackets(match[1].replace(" ", ""))
    for match in _PAIRS.finditer(text):
        found.add(pairs_key([(one[0], one[-1]) for one in match[1].split(", ")]))
    for match in _CHAIN.finditer(text):
        found.add(chain_key([(one[0], one[-1]) for one in match[1].split(", ")]))
    for match in _CIPHER.finditer(text):
        for shown in (*match[1].split(", "), match[2]):
            shift = (LETTERS.index(shown[-1]) - LETTERS.index(shown[0])) % len(LETTERS)
            found.add(cipher_key(shift, shown[0]))
    return found


def _in_brackets(marks: str) -> set[Key]:
    try:
        return set(block_keys(marks))
    except ValueError:  # another text's brackets, which do not match
        return set()


def _asked(text: str) -> set[Key]:
    found: set[Key] = set()
    for question, (form, by) in _BY_QUESTION.items():
        for match in form.finditer(text):
            person = _PERSON.get(match[1])
            if person is not None and getattr(person, by) == match[1]:
                found.add(question_key(question, person))
    return found
