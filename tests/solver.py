"""Answers to the lines of the task mixture, derived from their text alone, without the code that wrote them."""

from __future__ import annotations

import re

ALPHABET = "abcdefghijklmnopqrstuvwxyz"


def solved(line: str) -> tuple[str, str]:
    """Return (the line up to its answer, the correct answer without the stop)."""
    kind, rest = line.split(": ", 1)
    if kind in ("Copy", "Turn round"):
        letters = rest.split(".")[0].split(" ")
        question = re.match(r".*?\. [^:]*: ", line)
        assert question is not None
        return question[0], " ".join(letters if kind == "Copy" else reversed(letters))
    if kind == "Letters":
        letters = rest.split(".")[0].split(" ")
        question = re.match(r".*?(of a: |\? )", line)
        assert question is not None
        many = sum(letter == "a" for letter in letters)
        return question[0], ("Odd" if many & 1 else "Even") if "?" in line else str(many)
    if kind == "Remember":
        value = dict(re.findall(r"(\w) is (\d)", rest))
        question = re.match(r".*\. What is (\w) then\? ", line)
        assert question is not None
        return question[0], value[question[1]]
    if kind == "Chain":
        step = dict(re.findall(r"(\w) to (\w)", rest))
        question = re.match(r".*From (\w), after (\d) steps?: ", line)
        assert question is not None
        at = question[1]
        for _ in range(int(question[2])):
            at = step[at]
        return question[0], at
    if kind == "Cipher":
        *shots, (query, _) = re.findall(r"(\w) to (\w?)", line)
        shifts = {(ord(b) - ord(a)) % 26 for a, b in shots}
        assert len(shifts) == 1
        place = (ALPHABET.index(query) + shifts.pop()) % 26
        return line[: line.rindex(" to ") + 4], ALPHABET[place]
    assert kind == "Brackets"
    return _closed(line)


def _closed(line: str) -> tuple[str, str]:
    """Strike out matching pairs; the last bracket that is left open is the one to close."""
    whole = line.endswith(" end.")
    left = "".join(re.findall(r"[()\[\]]", line))[: -1 if whole else None]
    while (shorter := left.replace("()", "").replace("[]", "")) != left:
        left = shorter
    assert not set(left) & set(")]")
    return line.removesuffix(" end.")[:-1] if whole else line, {"(": ")", "[": "]"}[left[-1]]
