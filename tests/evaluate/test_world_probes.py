"""Probes of the stories' world: right by an independent reading of their text, never in a story, and balanced."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter, defaultdict

import pytest

from at_chance import counted, measured, uniform
from etude.data.primer.exercises import _VERBS
from etude.data.primer.generator import generate
from etude.data.primer.holdout import is_held_out
from etude.data.primer.lexicon import BOYS, GIRLS, NAMES, NUMBER_OF_WORD, OBJECT_FORMS, PLACE_NOUNS, PLACES
from etude.evaluate.contamination import question_text, search_training
from etude.evaluate.items import Item, Probe, choice, frozen
from etude.evaluate.world_probes import world_probes
from etude.evaluate.world_probes.combinations import held_out_in


def title(probe: Probe) -> str:
    return probe.title


PROBES = world_probes(0, 48)
NAME = "(" + "|".join(NAMES) + ")"
PLACE_OF = {kind.at: kind.noun for kind in PLACES}


@pytest.fixture(scope="module")
def stories() -> list[str]:
    return [tale.text for tale in generate(3, max_bytes=300_000)]


def named(name: str) -> list[Probe]:
    return [probe for probe in PROBES if probe.name == name]


def items(name: str) -> list[Item]:
    return [item for probe in named(name) for item in probe.items]


# --- the right answers, read from the text alone ---------------------------------------------------------


def held_at_the_end(story: str, noun: str) -> str:
    """Follow one thing through sentences by the order of the names, independently of how they were made."""
    holder = ""
    for sentence in re.findall(r"[^.?]+\.", story):
        if noun not in re.findall(r"\w+", sentence):
            continue
        people = re.findall(NAME, sentence)
        if len(people) == 2:
            taker, giver = people if "asks" in sentence or "gets" in sentence else people[::-1]
            assert holder == giver != taker
            holder = taker
        else:
            (holder,) = people
    return holder


def test_who_has_it_follows_from_the_story() -> None:
    for item in items("who has what"):
        story, question = item.answer.given.rsplit(". ", 1)
        noun = question.split()[3]
        assert held_at_the_end(story + ".", noun) == item.answer.said


def test_moves_are_counted() -> None:
    for probe in named("who has what"):
        for item in probe.items:
            moves = re.findall(r"gives the|hands the|asks for the|gets the", item.answer.given)
            assert f"{len(moves)} move" in probe.condition


def test_who_is_where_follows_from_the_walks() -> None:
    for probe in named("who is where"):
        for item in probe.items:
            *walks, question = item.answer.given.strip().split(". ")
            at = {}
            for walk in walks:
                words = walk.split()
                (who,) = set(words) & set(NAMES)
                (at[who],) = set(words) & set(PLACE_NOUNS)
            assert len(walks) == int(probe.condition.split()[0])
            match = re.search(NAME, question)
            assert match is not None
            assert PLACE_OF[item.answer.said.lower()] == at[match[0]]


def test_who_told_follows_from_the_telling() -> None:
    for item in items("who told whom"):
        match = re.search(rf"{NAME} told {NAME}", item.answer.given)
        owner = re.search(rf'(?:that |"){NAME} ha[ds]', item.answer.given)
        assert match is not None
        assert owner is not None
        assert item.answer.said == match[1]
        assert {one.said for one in item.candidates} == {match[1], owner[1]}
        assert f"Who told {match[2]} about" in item.answer.given


def test_sums_are_right() -> None:
    for item in items("arithmetic"):
        a, sign, b = re.findall(r"\d+|plus|minus", item.answer.given)
        assert int(item.answer.said.removesuffix(".\n")) == (
            int(a) + int(b) if sign == "plus" else int(a) - int(b)
        )
    by_condition = {probe.condition: probe for probe in world_probes(0, 256) if probe.name == "arithmetic"}
    for probe in by_condition.values():
        sums = [item.answer.given for item in probe.items]
        assert len(set(sums)) == len(sums)
    held_out = len([1 for a in range(21) for b in range(21) if is_held_out("sum", a, b, "+")]) + len(
        [1 for a in range(21) for b in range(a + 1) if is_held_out("sum", a, b, "-")]
    )
    count = sum(len(probe.items) for probe in by_condition.values())
    assert 0.9 * held_out < count <= held_out  # a result with a single sum is not asked


def test_word_problems_are_right() -> None:
    for item in items("word problems"):
        start, part = (
            NUMBER_OF_WORD[word]
            for word in re.findall(r"[a-z]+", item.answer.given)
            if word in NUMBER_OF_WORD
        )
        total = start + part if re.search("more", item.answer.given) else start - part
        number, noun = item.answer.said.lower().split()
        assert NUMBER_OF_WORD[number] == total
        assert OBJECT_FORMS[noun] == OBJECT_FORMS[item.answer.given.split("How many ")[1].split()[0]]
        assert (noun in {OBJECT_FORMS[noun]}) == (total == 1)
        owner = re.search(NAME, item.answer.given.split("How many")[1])
        assert owner is not None
        assert owner[0] == re.search(NAME, item.answer.given)[0]  # type: ignore[index]


def test_pronouns_and_agreement_are_right() -> None:
    for item in items("pronouns"):
        owner = re.search(NAME, item.answer.given)
        assert owner is not None
        assert item.answer.said.lower() in (("she", "her") if owner[0] in GIRLS else ("he", "him"))
        assert owner[0] in GIRLS + BOYS
    for item in items("agreement"):
        noun = item.answer.given.split()[1]
        assert item.answer.said == ("was" if OBJECT_FORMS[noun] == noun else "were")


def test_tenses_are_those_of_the_stories() -> None:
    past_of = {row[1]: row[2] for row in _VERBS}
    base_of = {row[1]: row[0] for row in _VERBS}
    for item in items("tenses"):
        instruction, sentence = item.answer.given.split("\n")[0].split(": ")
        verb = sentence.split()[1]
        wanted = past_of[verb] if instruction == "Tell it in the past" else f"will {base_of[verb]}"
        assert item.answer.said == wanted


# --- never told ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("probe", [probe for probe in PROBES if probe.name != "who is where"], ids=title)
def test_every_item_asks_for_a_combination_that_is_held_out(probe: Probe) -> None:
    for item in probe.items:
        found = held_out_in(question_text(item))
        assert found
        for kind, *what in found:
            assert kind in {"tense", "beside"} or is_held_out(str(kind), *what)


def test_the_stories_contain_none_of_it(stories: list[str]) -> None:
    for found in search_training(PROBES, lambda: stories, held_out_in):
        assert found.seen_combination == found.seen_verbatim == 0, found
        assert found.seen_words <= 0.05 * found.items


def test_what_the_stories_say_is_found_in_them(stories: list[str]) -> None:
    """The search works: the stories contain the same forms with taught combinations."""
    text = "\n".join(stories)
    assert re.search(r"What is \d+ plus \d+\? \d+\.", text)
    assert re.search(rf"Who has the \w+ now\? {NAME}", text)
    assert re.search(rf"Where is {NAME} now\? (In|At|On|By) the", text)
    assert re.search(rf"Who told {NAME} about the \w+\? ", text)
    assert re.search(r"How many \w+ (does|has|are there for) [^?]* now\? ", text)
    assert re.search(rf"Tell it in the past: {NAME} \w+ [^.]*\.\n{NAME} ", text)
    assert re.search(rf"Say it for tomorrow: {NAME} \w+ [^.]*\.\n{NAME} will", text)


FORMS = "|".join(sorted(OBJECT_FORMS, key=len, reverse=True))
NUMBERS = "|".join(sorted(NUMBER_OF_WORD, key=len, reverse=True))


def shape(sentence: str) -> str:
    """Remove names, things, looks, places and numbers."""
    sentence = re.sub(NAME, "N", sentence)
    sentence = re.sub(rf"\b(?:an?|the) (?:[\w-]+ )?(?:{FORMS})\b", "T", sentence, flags=re.IGNORECASE)
    sentence = re.sub(rf"\b(?:{NUMBERS})\b(?: (?:{FORMS})\b)?", "M", sentence)
    sentence = re.sub(rf"\b(?:{FORMS})\b", "T", sentence)
    sentence = re.sub(r"(down to|to|in|at|on|by) the (" + "|".join(PLACE_NOUNS) + ")", "P", sentence)
    return re.sub(r"\b(she|he|her|him)\b", "G", sentence, flags=re.IGNORECASE).strip()


@pytest.mark.parametrize("name", ["who has what", "who is where", "who told whom", "word problems"])
def test_the_wording_is_that_of_the_stories(name: str, stories: list[str]) -> None:
    def sentences(text: str) -> set[str]:
        return {shape(one) for one in re.findall(r"[^.?\n]+[.?]\"?", text)}

    in_stories = {one for story in stories for one in sentences(story)}
    in_questions = Counter(one for item in items(name) for one in sentences(item.answer.given))
    missing = {one for one in in_questions if one not in in_stories and "ran P to find" not in one}
    assert not missing


# --- balanced ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("probe", PROBES, ids=title)
def test_every_answer_is_right_as_often_as_the_others(probe: Probe) -> None:
    right: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for item in probe.items:
        right[tuple(one.said for one in item.candidates)][item.answer.said] += 1
    for said, times in right.items():
        assert set(times) == set(said)
        assert len(set(times.values())) == 1


@pytest.mark.parametrize("probe", PROBES, ids=title)
def test_the_last_bytes_before_the_answers_of_a_block_are_the_same(probe: Probe) -> None:
    if probe.name == "arithmetic":
        return  # counting sees their second number
    ends: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for item in probe.items:
        assert len({one.given for one in item.candidates}) == 1
        key = (item.group, *(one.said for one in item.candidates))
        if probe.name in {"agreement", "pronouns", "who told whom", "word problems"}:
            key = (*key, item.answer.given[-6:])
        ends[key].add(item.answer.given[-6:])
    assert all(len(found) == 1 for found in ends.values())


def share(probe: Probe, guess: dict[str, str]) -> float:
    return sum(guess[item.answer.given] == item.answer.said for item in probe.items) / len(probe.items)


@pytest.mark.parametrize("probe", named("who has what"), ids=title)
def test_first_last_and_starting_names_are_at_chance(probe: Probe) -> None:
    people = {item.answer.given: re.findall(NAME, item.answer.given) for item in probe.items}
    assert share(probe, {text: names[0] for text, names in people.items()}) == 0.5
    assert share(probe, {text: names[-1] for text, names in people.items()}) == 0.5
    starts = {}
    for text in people:
        noun = text.split("Who has the ")[1].split()[0]
        starts[text] = re.search(NAME, next(one for one in text.split(". ") if noun in one))[0]  # type: ignore[index]
    assert share(probe, starts) == pytest.approx(0.5, abs=0.1)


def test_first_and_last_names_are_at_chance() -> None:
    (probe,) = named("who told whom")
    for pick in (0, -1):
        guess = {}
        for item in probe.items:
            both = {one.said for one in item.candidates}
            telling = item.answer.given.split("\n\n")[1]
            guess[item.answer.given] = [name for name in re.findall(NAME, telling) if name in both][pick]
        assert share(probe, guess) == 0.5


def test_the_nearest_noun_is_at_chance() -> None:
    for probe in named("agreement"):
        guess = {}
        for item in probe.items:
            near = re.findall("|".join(rf"\b{form}\b" for form in OBJECT_FORMS), item.answer.given)[-1]
            guess[item.answer.given] = "was" if OBJECT_FORMS[near] == near else "were"
        assert share(probe, guess) == 0.5


# --- at chance -----------------------------------------------------------------------------------------


def test_uniform_logits_are_at_chance(stories: list[str]) -> None:
    answerer = uniform(stories[:30])
    for probe in world_probes(1, 1):
        assert measured(probe, answerer).accuracy.value == pytest.approx(probe.chance), probe.title


def test_counting_is_at_chance(stories: list[str]) -> None:
    answerer = counted(stories)
    for probe in PROBES:
        found = measured(probe, answerer).accuracy
        assert found.interval.holds(probe.chance), probe.title
        if probe.name != "arithmetic":
            assert found.value == pytest.approx(probe.chance), probe.title


def test_counting_is_seen_to_know_what_it_can_know(stories: list[str]) -> None:
    """Counting can see the verb next to its noun, and a verb's own ending."""
    pairs = [
        ("The lamps ", "were", "was"),
        ("His pockets ", "were", "was"),
        ("Soon they ", "were", "was"),
        ("The sun ", "was", "were"),
    ]
    leaky = Probe("leaky", "", "?", tuple(choice(*pair) for pair in pairs * 4))
    assert not measured(leaky, counted(stories)).accuracy.interval.holds(0.5)


# --- fixed ---------------------------------------------------------------------------------------------


def test_items_are_fixed_by_the_seed_alone() -> None:
    code = (
        "from etude.evaluate.items import frozen\n"
        "from etude.evaluate.world_probes import world_probes\n"
        "print(frozen(world_probes(0, 48)))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-c", code]
    other = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert other.stdout.strip() == frozen(PROBES)
    assert frozen(world_probes(1, 48)) != frozen(PROBES)
    assert len({probe.title for probe in PROBES}) == len(PROBES)


def test_no_more_items_than_requested() -> None:
    for most in (12, 48):
        assert all(len(probe.items) <= most for probe in world_probes(2, most))


def test_no_answer_is_the_beginning_of_another() -> None:
    """Otherwise the shorter answer would be at least as probable as the longer one, whatever the question."""
    for probe in PROBES:
        for item in probe.items:
            said = [one.said for one in item.candidates]
            assert not any(a != b and b.startswith(a) for a in said for b in said), (probe.title, said)
