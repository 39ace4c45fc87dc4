"""Find the held-out problems of the task mixture in any text."""

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
    """Return the keys of every held-out problem that the text states, asks or shows."""
    keys: set[Key] = set()
    if ": " in text:
        keys = {key for key in _listed(text) if is_held_out(key)}
    if "?" in text:
        keys |= {key for key in _questions(text) if is_held_out(key)}
    if "plus" in text or "+" in text:
        for match in _SUM.finditer(text):
            a, b = int(match[1]), int(match[2])
            if max(a, b) <= LARGEST and sum_held_out(a, b):
                keys.add(sum_key(a, b))
    return keys


def _listed(text: str) -> set[Key]:
    keys = {string_key(match[1].replace(" ", "")) for match in _STRING.finditer(text)}
    keys |= {counted_key(match[1].replace(" ", "")) for match in _LETTERS.finditer(text)}
    for match in _BRACKETS.finditer(text):
        keys |= _in_brackets(match[1].replace(" ", ""))
    for match in _PAIRS.finditer(text):
        keys.add(pairs_key([(pair[0], pair[-1]) for pair in match[1].split(", ")]))
    for match in _CHAIN.finditer(text):
        keys.add(chain_key([(edge[0], edge[-1]) for edge in match[1].split(", ")]))
    for match in _CIPHER.finditer(text):
        for shown in (*match[1].split(", "), match[2]):
            shift = (LETTERS.index(shown[-1]) - LETTERS.index(shown[0])) % len(LETTERS)
            keys.add(cipher_key(shift, shown[0]))
    return keys


def _in_brackets(marks: str) -> set[Key]:
    try:
        return set(block_keys(marks))
    except ValueError:  # brackets of another text, which do not match
        return set()


def _questions(text: str) -> set[Key]:
    keys: set[Key] = set()
    for question, (form, by) in _BY_QUESTION.items():
        for match in form.finditer(text):
            person = _PERSON.get(match[1])
            if person is not None and getattr(person, by) == match[1]:
                keys.add(question_key(question, person))
    return keys
