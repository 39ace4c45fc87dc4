"""The text states what is true in its world: sums, counts left, who has what, who is where."""

from __future__ import annotations

import re

import pytest

from etude.data.primer.generator import Tale, generate
from etude.data.primer.lexicon import COUNT_BY_NOUN, NAMES, NUMBER_OF_WORD, OBJECT_FORMS, PLACE_BY_NOUN
from etude.data.primer.world import World, WorldError


@pytest.fixture(scope="module")
def tales() -> list[Tale]:
    return list(generate(21, max_bytes=1_500_000))


def _value(word: str) -> int:
    return int(word) if word.isdigit() else NUMBER_OF_WORD[word.lower()]


def test_stated_sums_are_right(tales: list[Tale]) -> None:
    number = r"(\d+|[A-Za-z]+(?:-[a-z]+)?)"
    forms = (
        rf"{number} (\+|-) {number} = {number}",
        rf"{number} (plus|minus|take away) {number} is {number}",
        rf"What is {number} (plus|minus) {number}\? {number}\.",
        rf"How much is {number} (and|take away) {number}(?: more)?\? {number}\.",
        rf"{number} (and) {number} make {number}",
    )
    checked = 0
    for made in tales:
        for form in forms:
            for a, op, b, result in re.findall(form, made.text):
                sign = -1 if op in ("-", "minus", "take away") else 1
                assert _value(a) + sign * _value(b) == _value(result), (made.id, a, op, b, result)
                checked += 1
    assert checked > 500


def test_word_problems_come_out_right(tales: list[Tale]) -> None:
    checked = 0
    words = "|".join(sorted(NUMBER_OF_WORD, key=len, reverse=True))
    for made in tales:
        if made.kind != "exercise" or "How many" not in made.text:
            continue
        for line in made.text.split("\n\n"):
            counts = [NUMBER_OF_WORD[word.lower()] for word in re.findall(rf"(?i)\b({words})\b", line)]
            start, change, result = counts[0], counts[1], counts[-1]
            assert result == (start + change if " more" in line else start - change), line
            checked += 1
    assert checked > 50


def test_counts_left_in_stories(tales: list[Tale]) -> None:
    words = "|".join(sorted(NUMBER_OF_WORD, key=len, reverse=True))
    gift = re.compile(
        rf"(?s)\b({words}) (?:[a-z]+ )?(?:{'|'.join(k.plural for k in COUNT_BY_NOUN.values())})\b"
        rf"(?:(?!\n\n).)*?\b({words}) ([a-z]+)(?:(?!\n\n).)*?"
        rf"(?:Now (?:he|she) had ({words}) left|and kept ({words})|left (?:him|her) with ({words}))"
    )
    checked = 0
    for made in tales:
        for match in gift.finditer(made.text) if made.kind == "story" else ():
            left = next(word for word in match.groups()[3:] if word)
            assert NUMBER_OF_WORD[match[1]] - NUMBER_OF_WORD[match[2]] == NUMBER_OF_WORD[left], (
                made.id,
                match[0],
            )
            checked += 1
    assert checked > 15


def test_facts_add_up(tales: list[Tale]) -> None:
    for made in tales:
        for held in made.facts.holdings.values():
            assert all(count > 0 for count in held.values()), made.id
        for a, b, op in made.facts.sums:
            assert op == "+" or a >= b, made.id
        for name, noun in made.facts.name_objects:
            assert name in made.text
            assert any(form in made.text for form, one in OBJECT_FORMS.items() if one == noun)


def test_who_has_it_now(tales: list[Tale]) -> None:
    checked = 0
    pattern = (
        r"Who has the (\w+) (?:now|at the end)\?(?:\n| )(?:A: |Answer: )?"
        r"((?:(?:Mrs?|Miss|Captain|Aunt|Uncle) )?\w+)"
    )
    for made in tales:
        for noun, name in re.findall(pattern, made.text):
            assert made.facts.holdings[name][noun] >= 1, (made.id, noun, name)
            holders = [person for person, held in made.facts.holdings.items() if noun in held]
            assert holders == [name], made.id
            checked += 1
    assert checked > 150


def _follow(text: str) -> dict[str, str]:
    """Read the hand-to-hand exercises independently: return who has each thing after the last sentence."""
    holder: dict[str, str] = {}
    for sentence in re.split(r"(?<=[.?])\s", text):
        names = [word for word in re.findall(r"\w+", sentence) if word in NAMES]
        nouns = [OBJECT_FORMS[word] for word in re.findall(r"\w+", sentence) if word in OBJECT_FORMS]
        if not names or not nouns or sentence.startswith("Who"):
            continue
        if len(names) == 1 and not re.search(r"gives|hands|gets", sentence):
            holder.setdefault(nouns[0], names[0])
        elif "asks for" in sentence or "gets" in sentence:
            holder[nouns[0]] = names[0]
        else:
            holder[nouns[0]] = names[1]
    return holder


def test_hand_to_hand_exercises_by_an_independent_reader(tales: list[Tale]) -> None:
    checked = 0
    for made in tales:
        if made.kind != "exercise" or "Who has the" not in made.text:
            continue
        holder = _follow(made.text.split("Who has")[0])
        for question, answer in made.facts.answers:
            noun = re.findall(r"Who has the (\w+)", question)[0]
            assert answer.split()[0].rstrip(".") == holder[noun], made.text
            checked += 1
    assert checked > 50


def test_who_is_where_by_an_independent_reader(tales: list[Tale]) -> None:
    checked = 0
    for made in tales:
        if made.kind != "exercise" or "Where is" not in made.text:
            continue
        where: dict[str, str] = {}
        for sentence in made.text.split("Where is")[0].rstrip(". ").split(". "):
            name = next(word for word in re.findall(r"\w+", sentence) if word in NAMES)
            where[name] = next(word for word in re.findall(r"\w+", sentence) if word in PLACE_BY_NOUN)
        for question, answer in made.facts.answers:
            assert where[question.split()[2]] in answer, made.text
            assert made.facts.places[question.split()[2]] == where[question.split()[2]]
            checked += 1
    assert checked > 50


def test_every_answer_follows_its_question(tales: list[Tale]) -> None:
    for made in tales:
        for question, answer in made.facts.answers:
            assert answer in made.text[made.text.index(question) + len(question) :], (made.id, question)


def test_false_statements_are_denied(tales: list[Tale]) -> None:
    questions = [pair for made in tales for pair in made.facts.answers if pair[0].startswith("Is it true")]
    assert sum(answer.startswith("No") for _, answer in questions) > 20
    assert sum(answer.startswith("Yes") for _, answer in questions) > 20


def test_world_refuses_the_impossible() -> None:
    world = World()
    world.get("Anna", "kite")
    with pytest.raises(WorldError):
        world.give("Tom", "Anna", "kite")
    with pytest.raises(WorldError):
        world.use_up("Anna", "kite", 2)
    with pytest.raises(WorldError):
        world.take("Anna", "drum")
    world.give("Anna", "Tom", "kite", lend=True)
    assert world.has("Tom", "kite") == 1
    assert world.has("Anna", "kite") == 0
    assert world.owner["kite"] == "Anna"
