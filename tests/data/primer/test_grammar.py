"""The template language and the rule of pronouns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from etude.data.primer.entities import Group, Person, amount
from etude.data.primer.grammar import Lines, compile_template, finish
from etude.data.primer.lexicon import COUNT_BY_NOUN, NUMBER_OF_WORD, number_word, plural_of
from etude.data.primer.rng import Rng
from etude.data.primer.story import Story


def _tell(st: Story, source: str) -> str:
    out: list[str] = []
    st.render(compile_template(source), st.env, out)
    return finish("".join(out))


def _stage(*people: tuple[str, str, str]) -> Story:
    st = Story(Rng("stage"))
    for key, name, gender in people:
        st.cast(key, Person(name, gender))
    return st


def test_pronoun_after_a_mention() -> None:
    st = _stage(("a", "Anna", "f"), ("b", "Tom", "m"))
    assert _tell(st, "{a} saw {b.o}. {a} waved to {b.o}.") == "Anna saw Tom. She waved to him."


def test_name_again_when_a_rival_was_mentioned() -> None:
    st = _stage(("a", "Ben", "m"), ("b", "Tom", "m"))
    assert _tell(st, "{a} saw {b.o}. {a} waved.") == "Ben saw Tom. Ben waved."


def test_name_again_after_two_sentences() -> None:
    st = _stage(("a", "Anna", "f"))
    assert (
        _tell(st, "{a} ran. It rained. It snowed. {a} sang.") == "Anna ran. It rained. It snowed. Anna sang."
    )


def test_group_is_they_only_when_all_were_mentioned() -> None:
    st = _stage(("a", "Anna", "f"), ("b", "Tom", "m"))
    st.env["both"] = Group([st.env["a"], st.env["b"]])
    assert _tell(st, "{both} ran. Nobody saw {both.o}.") == "Anna and Tom ran. Nobody saw them."


def test_branches_all_occur_and_nest() -> None:
    st = _stage()
    seen = {_tell(st, "[one|two [deep|deeper]|]x.") for _ in range(200)}
    assert seen == {"Onex.", "Two deepx.", "Two deeperx.", "X."}


@pytest.mark.parametrize("bad", ["[a|b", 'say "no', '["a|b"] c'])
def test_broken_templates_are_refused(bad: str) -> None:
    with pytest.raises(ValueError, match=r"unclosed|quotation"):
        compile_template(bad)


def test_articles() -> None:
    assert finish("it was a apple and a big egg. a owl sat.") == "It was an apple and a big egg. An owl sat."


@given(some.integers(0, 59))
def test_number_words_are_read_back(value: int) -> None:
    assert NUMBER_OF_WORD[number_word(value)] == value


def test_amounts_and_plurals() -> None:
    apple = COUNT_BY_NOUN["apple"]
    assert [amount(count, apple) for count in (0, 1, 2)] == ["no apples", "one apple", "two apples"]
    plurals = {"kite": "kites", "teddy": "teddies", "compass": "compasses", "key": "keys"}
    assert all(plural_of(one) == many for one, many in plurals.items())


def test_rng_stays_in_range_and_repeats() -> None:
    draws = [Rng("x").between(2, 5) for _ in range(3)]
    assert len(set(draws)) == 1
    rng = Rng("y")
    assert {rng.between(2, 5) for _ in range(200)} == {2, 3, 4, 5}
    assert sorted(rng.some(range(9), 9)) == list(range(9))


def test_lines_are_not_repeated_while_others_are_left() -> None:
    st = _stage()
    lines = Lines(*(f"Line {number}." for number in range(12)))
    phrases = [st.phrase(lines) for _ in range(6)]
    assert len(set(phrases)) >= 5
