"""Copy, reverse, count, determine parity, close a bracket: with strings that were never shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from etude.data.primer.rng import Rng
from etude.data.tasks import brackets, strings
from etude.data.tasks.problem import Problem, is_held_out
from etude.evaluate.blocks import Question, blocks
from etude.evaluate.items import Probe

_COPY_LENGTHS = (2, 4, 6, 8, 12)
_COUNT_LENGTHS = (8, 10, 12)
_DEPTHS = (1, 2, 3, 4)
_MOST_COUNTED = 5
_MOST_INNER_PAIRS = 6
_NEW_TRIES = 400


def string_probes(seed: int, max_items: int) -> list[Probe]:
    probes = []
    for name, make in (("copy", strings.copy), ("reverse", strings.reverse)):
        probes += [_ordered(name, make, length, seed, max_items) for length in _COPY_LENGTHS]
    for length in _COUNT_LENGTHS:
        probes += [_counted(length, seed, max_items), _parity(length, seed, max_items)]
    return probes + [_closed(depth, seed, max_items) for depth in _DEPTHS]


def _questions(problems: Sequence[Problem]) -> list[Question]:
    return [(problem.text, problem.answer) for problem in problems]


def _ordered(name: str, make: Callable[[str], Problem], length: int, seed: int, max_items: int) -> Probe:
    rng = Rng(f"probe {seed} {name} {length}")

    def pair(_: int) -> list[Question]:
        while True:
            one = strings.drawn(rng, strings.LETTERS, length)
            other = "".join(rng.some(one, length))
            if one != other and is_held_out(strings.string_key(one)):
                return _questions([make(one), make(other)])

    longer = length > strings.LONGEST_COPY
    return Probe(
        name,
        f"length {length}",
        f"{'The letters in the same order' if name == 'copy' else 'The letters from last to first'}, "
        "or the answer to another order of them?",
        blocks(pair, max_items),
        held_out="These letters in any order" + (", and any string of this length." if longer else "."),
        open_answer=True,
    )


def _counted(length: int, seed: int, max_items: int) -> Probe:
    rng = Rng(f"probe {seed} count {length}")
    used: set[str] = set()

    def every_count(_: int) -> list[Question]:
        strings_by_count = [_with_count(rng, many, length, used) for many in range(_MOST_COUNTED + 1)]
        used.update(strings_by_count)
        return _questions([strings.count(letters) for letters in strings_by_count])

    return Probe(
        "letter counting",
        f"length {length}",
        f"How many of the letters are {strings.COUNTED}?",
        blocks(every_count, max_items),
        held_out="This string of letters, for counting and for parity.",
        open_answer=True,
    )


def _with_count(rng: Rng, many: int, length: int, used: set[str]) -> str:
    """Draw a held-out string with `many` of the counted letter, an unused one as long as there is one."""
    rest = strings.ALPHABET.replace(strings.COUNTED, "")
    tries = 0
    while True:
        tries += 1
        unordered = [strings.COUNTED] * many + [rng.pick(rest) for _ in range(length - many)]
        letters = "".join(rng.some(unordered, length))
        if is_held_out(strings.counted_key(letters)) and (letters not in used or tries > _NEW_TRIES):
            return letters


def _parity(length: int, seed: int, max_items: int) -> Probe:
    rng = Rng(f"probe {seed} parity {length}")
    used: set[str] = set()

    def neighbours(_: int) -> list[Question]:
        tries = 0
        while True:
            tries += 1
            letters, at = strings.drawn(rng, strings.ALPHABET, length), rng.between(0, length - 1)
            new = "b" if letters[at] == strings.COUNTED else strings.COUNTED
            pair = {letters, letters[:at] + new + letters[at + 1 :]}
            held = all(is_held_out(strings.counted_key(member)) for member in pair)
            if held and (used.isdisjoint(pair) or tries > _NEW_TRIES):
                used.update(pair)
                return _questions([strings.parity(member) for member in sorted(pair)])

    return Probe(
        "parity",
        f"length {length}",
        f"Is the number of {strings.COUNTED} odd or even? Two strings that differ in one letter.",
        blocks(neighbours, max_items),
        held_out="This string of letters, for counting and for parity.",
        open_answer=True,
    )


def _closed(depth: int, seed: int, max_items: int) -> Probe:
    rng = Rng(f"probe {seed} brackets {depth}")

    def both_kinds(_: int) -> list[Question]:
        inner = _held_inner(rng)
        before = ""
        for _ in range(depth - 1):
            beside = "".join(rng.pick(("", "()", "[]")) for _ in range(2))
            before += rng.pick("([") + beside
        return _questions([brackets.closing(before, inner, opener) for opener in "(["])

    return Probe(
        "brackets",
        f"depth {depth}",
        "Which bracket closes the last open one, when others are open before it?",
        blocks(both_kinds, max_items),
        held_out="This nesting between two matching brackets, of any kinds.",
        open_answer=True,
    )


def _held_inner(rng: Rng) -> str:
    """Draw what is between two brackets: it is held out itself, and none of its parts is."""
    while True:
        inner = brackets.drawn_word(rng, rng.between(2, _MOST_INNER_PAIRS))
        parts = brackets.block_keys(inner)
        if is_held_out(brackets.shape_key(inner)) and not any(map(is_held_out, parts)):
            return inner
