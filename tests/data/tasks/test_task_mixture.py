"""The task mixture: every line is true by an independent reading, nothing held out occurs, its size is bounded."""

from __future__ import annotations

import re
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from etude.data.document import Document
from etude.data.primer.holdout import HELD_SUMS, name_objects
from etude.data.primer.rng import Rng
from etude.data.reading.builtin import TASK_BYTES
from etude.data.reading.piece import SourceLog
from etude.data.reading.sources import open_sources
from etude.data.tasks.brackets import block_keys, drawn_word, shape_key
from etude.data.tasks.generator import document, documents
from etude.data.tasks.people import PEOPLE, QUESTIONS, question_key
from etude.data.tasks.problem import ONE_IN, is_held_out
from etude.data.tasks.search import held_out_in
from etude.data.tasks.strings import drawn, string_key
from etude.data.tasks.sums import sum_held_out, sum_key
from etude.errors import InputError
from solver import solved

MANY = [document(5, index) for index in range(2000)]


@pytest.fixture(scope="module")
def stated() -> dict[str, dict[str, str]]:
    """Read the biographies: return town, trade and house of each name."""
    facts: dict[str, dict[str, str]] = {}
    for one in MANY:
        for fact, said in (
            ("town", r"(?:was born in|comes from|grew up in) ([A-Z][\w ]+)\."),
            ("trade", r"(?:works as a|earns a living as a|is a) (\w+)"),
            ("house", r"(?:lives in a house called|owns the house|can be found at) ([A-Z]\w+ [A-Z]\w+)\."),
        ):
            for name, value in re.findall(rf"([A-Z]\w+ [A-Z]\w+) {said}", one.text):
                assert facts.setdefault(name, {}).setdefault(fact, value) == value
    return facts


def lines(kind: str) -> list[str]:
    return [line for one in MANY for line in one.text.split("\n") if line.startswith(kind)]


@pytest.mark.parametrize("kind", ["Copy", "Turn", "Letters", "Remember", "Chain", "Cipher", "Brackets"])
def test_every_line_is_true(kind: str) -> None:
    found = lines(kind)
    assert len(found) > 300
    for line in found:
        question, answer = solved(line)
        assert question + answer == line.removesuffix(".").removesuffix(" end")


def test_sums_are_true_and_leave_out_what_the_stories_leave_out() -> None:
    found = [line for one in MANY for line in one.text.split("\n") if " plus " in line]
    assert len(found) > 500
    for line in found:
        a, b, result = map(int, re.findall(r"\d+", line))
        assert a + b == result
        assert (a, b, "+") not in HELD_SUMS


def test_every_question_follows_from_a_statement(stated: dict[str, dict[str, str]]) -> None:
    assert len(stated) > 0.9 * len(PEOPLE)
    house_of = {facts["house"]: name for name, facts in stated.items()}
    assert len(house_of) == len(stated)
    answered = 0
    for one in MANY:
        for kind, by, answer in re.findall(
            r"^(Where was|What does|What is the house of|Who lives in the house) ([A-Z]\w+ [A-Z]\w+) [^?]*\? (.*)\.$",
            one.text,
            re.MULTILINE,
        ):
            answered += 1
            if kind == "Who lives in the house":
                assert house_of.get(by, answer) == answer
            elif by in stated:
                fact = {"Where was": "town", "What does": "trade"}.get(kind, "house")
                assert stated[by][fact] == answer.removeprefix("A ")
    assert answered > 300


def test_the_house_never_comes_before_its_owner() -> None:
    """Otherwise the reversed question would only repeat a statement."""
    for one in MANY:
        for line in one.text.split("\n"):
            for house in (person.house for person in PEOPLE if person.house in line):
                after = line.split(house, 1)[1]
                if not line.startswith("Who lives in"):
                    assert not any(person.name in after for person in PEOPLE)


def test_nothing_held_out_occurs() -> None:
    for one in MANY:
        assert not held_out_in(one.text), one.text


def test_the_search_finds_every_kind() -> None:
    """Held-out problems written by hand are each found by their own key; their taught neighbours are not."""
    rng = Rng("by hand")
    held, taught = (
        next(s for s in iter(lambda: drawn(rng, "abcdefgh", 5), "") if is_held_out(string_key(s)) is wanted)
        for wanted in (True, False)
    )
    assert held_out_in(f"Turn round: {' '.join(held)}. Anything") == {string_key(held)}
    assert held_out_in(f"Copy: {' '.join(taught)}. Anything") == set()
    a, b = next((a, b) for a in range(50, 90) for b in range(30, 60) if is_held_out(sum_key(a, b)))
    for form in (f"x = {a} + {b}", f"{b}+{a}", f"{a} plus {b} makes {a + b}."):
        assert held_out_in(form) == {sum_key(a, b)}
    assert held_out_in(f"1{a} + {b}0") == set()
    for question, (form, by) in QUESTIONS.items():
        person = next(one for one in PEOPLE if is_held_out(question_key(question, one)))
        sentence = form.format(getattr(person, by))
        assert held_out_in(f"Tell me. {sentence}") >= {question_key(question, person)}


def test_about_a_fifth_is_held_out() -> None:
    sums = [sum_held_out(a, b) for a in range(100) for b in range(100)]
    assert abs(sum(sums) / len(sums) - 1 / ONE_IN) < 0.02
    assert all(sum_held_out(a, b) == sum_held_out(b, a) for a in range(100) for b in range(0, 100, 7))
    for question in QUESTIONS:
        share = sum(is_held_out(question_key(question, person)) for person in PEOPLE) / len(PEOPLE)
        assert abs(share - 1 / ONE_IN) < 0.08
    assert is_held_out(string_key("abcd")) == is_held_out(string_key("dcba"))
    shapes = {shape_key(drawn_word(Rng(f"{at}"), 8)) for at in range(2000)}
    assert abs(sum(map(is_held_out, shapes)) / len(shapes) - 1 / ONE_IN) < 0.04


def test_matching_brackets_are_distinguished_by_their_content() -> None:
    assert block_keys("([]())") == [("brackets", "()()")] == block_keys("[()[]]")
    assert block_keys("([[]])") == [("brackets", "(())")]
    assert block_keys("[(()())(") == [("brackets", "()()")]  # the beginning of a word
    assert block_keys("(())") == []
    for wrong in ("(]", "())"):
        with pytest.raises(ValueError, match="does not match"):
            block_keys(wrong)
    lengths = Counter(len(re.findall(r"[()\[\]]", line)) // 2 for line in lines("Brackets"))
    assert set(lengths) == set(range(3, 11))


def test_documents_are_a_function_of_seed_and_number() -> None:
    assert list(islice(documents(5), 30)) == MANY[:30]
    assert document(6, 0) != document(5, 0)
    assert len({one.text for one in MANY}) > 0.99 * len(MANY)


def test_no_word_is_of_the_stories_world() -> None:
    """Mixed with builtin:primer, the tasks must not contain what the primer's probes ask."""
    for one in MANY:
        assert not name_objects(one.text)


def opened(*names: str, max_bytes: int | None = None) -> list[Document]:
    sources = open_sources(names, text_field="text", max_bytes=max_bytes, seed=0, spool=Path("unused"))
    return [
        piece.document
        for source in sources
        for piece in source.pieces(SourceLog())
        if source.name == "builtin:tasks"
    ]


def size(found: list[Document]) -> int:
    return sum(len(one.text.encode()) for one in found)


def test_the_mixture_is_an_addition_of_bounded_size(tmp_path: Path) -> None:
    own = tmp_path / "own.txt"
    own.write_text("my own text\n")
    assert TASK_BYTES * 0.99 < size(opened(str(own), "builtin:tasks")) <= TASK_BYTES
    assert 9_000 < size(opened("builtin:tasks", max_bytes=10_000)) <= 10_000
    with pytest.raises(InputError, match="builtin:tasks"):
        opened("builtin:task")


def test_a_limit_cuts_the_other_text_and_not_the_mixture(tmp_path: Path) -> None:
    """After an endless source, nothing would be left for whatever comes beyond the limit."""
    sources = open_sources(
        ["builtin:primer", "builtin:tasks"], text_field="text", max_bytes=200_000, seed=0, spool=tmp_path
    )
    assert [source.name for source in sources] == ["builtin:tasks", "builtin:primer"]
    first = sum(len(piece.document.text.encode()) for piece in sources[0].pieces(SourceLog()))
    assert 18_000 < first <= 20_000


def test_the_source_says_what_its_text_depends_on() -> None:
    def identity(seed: int, max_bytes: int | None) -> dict[str, object]:
        (source,) = open_sources(
            ["builtin:tasks"], text_field="text", max_bytes=max_bytes, seed=seed, spool=Path("unused")
        )
        return source.identity()

    assert identity(0, None) == identity(0, None)
    assert len({str(identity(*one)) for one in ((0, None), (1, None), (0, 5_000))}) == 3
