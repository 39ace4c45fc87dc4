"""Held-out combinations: their number, always the same, never in the corpus, and renderable for probes."""

from __future__ import annotations

import re
from itertools import islice

import pytest

from etude.data.primer.generator import Tale, generate
from etude.data.primer.holdout import KINDS, contains_held_out, held_out_items, is_held_out, sums
from etude.data.primer.lexicon import NAMES, NUMBER_OF_WORD, OBJECT_FORMS, OBJECTS, PLACE_NOUNS
from etude.data.primer.unseen import render_held_out


@pytest.fixture(scope="module")
def tales() -> list[Tale]:
    return list(generate(31, max_bytes=1_000_000))


def test_share_of_each_space() -> None:
    pairs = sum(is_held_out("name_object", name, noun) for name in NAMES for noun in OBJECTS)
    assert 0.1 < pairs / (len(NAMES) * len(OBJECTS)) < 0.2
    space = list(sums())
    assert 0.1 < sum(is_held_out("sum", *item) for item in space) / len(space) < 0.2
    kept = list(held_out_items("kept"))
    assert 0.08 < len(kept) / (len(NAMES) * len(OBJECTS) * len(PLACE_NOUNS)) < 0.2
    held = [
        is_held_out("told", a, b, c, "kite") for a in NAMES[:9] for b in NAMES[9:20] for c in NAMES[20:35]
    ]
    assert 0.1 < sum(held) / len(held) < 0.2


def test_addition_is_held_out_in_both_orders() -> None:
    assert all(
        is_held_out("sum", a, b, "+") == is_held_out("sum", b, a, "+") for a in range(21) for b in range(21)
    )


def test_unknown_kind() -> None:
    with pytest.raises(ValueError, match="unknown kind"):
        is_held_out("colour", "red")
    with pytest.raises(ValueError, match="unknown kind"):
        next(held_out_items("colour"))


def test_no_document_has_a_held_out_name_and_object(tales: list[Tale]) -> None:
    seen = set()
    for made in tales:
        words = set(re.findall(r"[A-Za-z]+", made.text))
        names = [name for name in NAMES if name in words]
        nouns = {noun for form, noun in OBJECT_FORMS.items() if form in words or form.capitalize() in words}
        for name in names:
            for noun in nouns:
                assert not is_held_out("name_object", name, noun), made.id
                seen.add((name, noun))
    taught = sum(not is_held_out("name_object", name, noun) for name in NAMES for noun in OBJECTS)
    assert len(seen) > 0.5 * taught


def test_no_held_out_sum(tales: list[Tale]) -> None:
    number = r"(\d+|" + "|".join(sorted(NUMBER_OF_WORD, key=len, reverse=True)) + ")"
    patterns = [
        (rf"\b{number} (?:\+|plus) {number}\b", "+", False),
        (rf"\b{number} and {number} (?:make|more)\b", "+", False),
        (rf"\b{number} (?:-|minus|take away) {number}\b", "-", False),
        (rf"\btake {number} from {number}\b", "-", True),
    ]
    seen = set()
    for made in tales:
        for pattern, op, swapped in patterns:
            for pair in re.findall(pattern, made.text.lower()):
                a, b = (int(word) if word.isdigit() else NUMBER_OF_WORD[word] for word in pair)
                a, b = (b, a) if swapped else (a, b)
                assert not is_held_out("sum", a, b, op), (made.id, pair)
                seen.add((a, b, op))
        for item in made.facts.sums:
            assert not is_held_out("sum", *item), made.id
    assert len(seen) > 200


def test_no_held_out_telling(tales: list[Tale]) -> None:
    seen = set()
    for made in tales:
        for teller, listener, owner, noun in re.findall(
            r"(\w+) told (\w+) that (\w+) had the (?:[\w-]+ )?(\w+)\.", made.text
        ):
            assert not is_held_out("told", teller, listener, owner, noun), made.id
            assert (teller, listener, owner, noun) in made.facts.told
            seen.add((teller, listener, owner, noun))
        for item in made.facts.told:
            assert not is_held_out("told", *item), made.id
    assert len(seen) > 15


def test_no_held_out_place_of_a_thing(tales: list[Tale]) -> None:
    for made in tales:
        for item in made.facts.kept:
            assert not is_held_out("kept", *item), made.id
        for sentence in re.split(r"[.!?\n]", made.text):
            words = set(re.findall(r"[A-Za-z]+", sentence))
            nouns = {noun for form, noun in OBJECT_FORMS.items() if form in words}
            for name in words & set(NAMES):
                for noun in nouns:
                    for place in words & set(PLACE_NOUNS):
                        assert not is_held_out("kept", name, noun, place), (made.id, sentence)


@pytest.mark.parametrize("kind", KINDS)
def test_rendered_held_out_text_contains_the_combination(kind: str) -> None:
    items = list(islice(held_out_items(kind), 0, 4000, 40))
    assert len(items) > 2
    for seed, item in enumerate(items):
        assert is_held_out(kind, *item)
        text = render_held_out(kind, item, seed)
        assert text == render_held_out(kind, item, seed)
        assert contains_held_out(text), (item, text)
        assert re.match(r'"?[A-Z0-9]', text)
        assert not re.search(r"[{}\[\]<>|]|  |\b[Aa] [aeiou]", text), text


def test_rendering_what_is_taught_is_refused() -> None:
    taught = next(item for item in sums() if not is_held_out("sum", *item))
    with pytest.raises(ValueError, match="taught"):
        render_held_out("sum", taught, 0)
