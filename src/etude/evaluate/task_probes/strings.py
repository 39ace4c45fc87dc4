"""Copy, turn round, count, tell odd from even, close a bracket: on strings that were never shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from etude.data.primer.rng import Rng
from etude.data.tasks import strings
from etude.data.tasks.brackets import brackets_key, completion, drawn_word
from etude.data.tasks.problem import Problem, is_held_out
from etude.evaluate.blocks import Asked, blocks
from etude.evaluate.items import Probe

_COPY_LENGTHS = (2, 4, 6, 8, 12)
_COUNT_LENGTHS = (8, 10, 12)
_DEPTHS = (2, 3, 4, 5)
_MOST_COUNTED = 5
_LEAST_INNER = 4
"""Brackets between the two that match: further apart than seven bytes."""


def string_probes(seed: int, max_items: int) -> list[Probe]:
    probes = []
    for name, make in (("copy", strings.copy), ("reverse", strings.reverse)):
        probes += [_ordered(name, make, length, seed, max_items) for length in _COPY_LENGTHS]
    for length in _COUNT_LENGTHS:
        probes += [_counted(length, seed, max_items), _parity(length, seed, max_items)]
    return probes + [_closed(depth, seed, max_items) for depth in _DEPTHS]


def _asked(problems: Sequence[Problem]) -> list[Asked]:
    return [(problem.text, problem.answer) for problem in problems]


def _ordered(name: str, make: Callable[[str], Problem], length: int, seed: int, max_items: int) -> Probe:
    rng = Rng(f"probe {seed} {name} {length}")

    def pair(_: int) -> list[Asked]:
        while True:
            one = strings.drawn(rng, strings.LETTERS, length)
            other = "".join(rng.some(one, length))
            if one != other and is_held_out(strings.string_key(one)):
                return _asked([make(one), make(other)])

    longer = length > strings.LONGEST_COPY
    return Probe(
        name,
        f"length {length}",
        f"{'The letters in the same order' if name == 'copy' else 'The letters from last to first'}, "
        "or the answer to another order of them?",
        blocks(pair, max_items),
        held_out="These letters in any order" + (", and any string that is so long." if longer else "."),
        open_answer=True,
    )


def _held_string(rng: Rng, length: int, fits: Callable[[str], bool]) -> str:
    while True:
        letters = strings.drawn(rng, strings.ALPHABET, length)
        if fits(letters) and is_held_out(strings.counted_key(letters)):
            return letters


def _counted(length: int, seed: int, max_items: int) -> Probe:
    rng = Rng(f"probe {seed} count {length}")

    def every_count(_: int) -> list[Asked]:
        found = []
        for many in range(_MOST_COUNTED + 1):
            others = [rng.pick(strings.ALPHABET.replace(strings.COUNTED, "")) for _ in range(length - many)]
            found.append(_with_so_many(rng, many, others))
        return _asked([strings.count(letters) for letters in found])

    return Probe(
        "letter counting",
        f"length {length}",
        f"How many of the letters are {strings.COUNTED}?",
        blocks(every_count, max_items),
        held_out="This string of letters, whether counted or told odd from even.",
        open_answer=True,
    )


def _with_so_many(rng: Rng, many: int, others: Sequence[str]) -> str:
    rest = strings.ALPHABET.replace(strings.COUNTED, "")
    while True:
        letters = "".join(rng.some([strings.COUNTED] * many + list(others), many + len(others)))
        if is_held_out(strings.counted_key(letters)):
            return letters
        others = [rng.pick(rest) for _ in others]


def _parity(length: int, seed: int, max_items: int) -> Probe:
    rng = Rng(f"probe {seed} parity {length}")

    def neighbours(_: int) -> list[Asked]:
        while True:
            one = _held_string(rng, length, lambda letters: True)
            at = rng.between(0, length - 1)
            new = "b" if one[at] == strings.COUNTED else strings.COUNTED
            other = one[:at] + new + one[at + 1 :]
            if is_held_out(strings.counted_key(other)):
                return _asked([strings.parity(one), strings.parity(other)])

    return Probe(
        "parity",
        f"length {length}",
        f"Is the number of {strings.COUNTED} odd or even? Two strings that differ in one letter.",
        blocks(neighbours, max_items),
        held_out="This string of letters, whether counted or told odd from even.",
        open_answer=True,
    )


def _closed(depth: int, seed: int, max_items: int) -> Probe:
    rng = Rng(f"probe {seed} brackets {depth}")

    def both_kinds(_: int) -> list[Asked]:
        while True:
            word = drawn_word(rng, depth)
            if len(word) - 2 >= _LEAST_INNER and is_held_out(brackets_key(word)):
                return _asked([completion(f"({word[1:-1]})"), completion(f"[{word[1:-1]}]")])

    return Probe(
        "brackets",
        f"depth {depth}",
        "Which bracket closes the first one, after all that stands within?",
        blocks(both_kinds, max_items),
        held_out="What stands within the outermost brackets.",
        open_answer=True,
    )
