"""The text of the grokking study: every equation once, correct, and split so that no shown text is held out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from etude.config import load_settings
from etude.data.prepared_data import prepare
from etude.data.studies.modular import MODULUS, SYMBOLS, documents
from etude.errors import InputError
from etude.evaluate.questions import questions_for, suites_for
from etude.evaluate.study_probes import modular_probes
from etude.settings_file import recipe_file


def test_every_sum_comes_once_and_is_right() -> None:
    made = [one.text for one in documents(3)]
    assert len(set(made)) == len(made) == MODULUS**2
    assert len(set(SYMBOLS)) == MODULUS
    for text in made:
        a, minus, b, equals, c = text
        assert (minus, equals) == ("-", "=")
        assert (SYMBOLS.index(b) + SYMBOLS.index(c)) % MODULUS == SYMBOLS.index(a)


def test_the_seed_decides_the_order_and_bytes_the_length() -> None:
    assert list(documents(1)) == list(documents(1))
    assert list(documents(1)) != list(documents(2))
    assert {one.text for one in documents(1)} == {one.text for one in documents(2)}
    assert [one.text for one in documents(1, 52)] == [one.text for one in documents(1)][:10]


def test_the_recipe_asks_for_what_it_showed_and_for_what_it_did_not(tmp_path: Path) -> None:
    settings = load_settings(recipe_file("grokking"))
    data = prepare(settings.data, settings.tokenizer, family_pattern="llama3", seed=1, cache=tmp_path)
    shown = {one.decode() for one in data.documents("train")}
    held_out = {one.decode() for one in data.documents("validation")}
    assert shown.isdisjoint(held_out)
    assert len(shown) + len(held_out) == MODULUS**2
    assert 0.5 < len(held_out) / MODULUS**2 < 0.6
    assert suites_for(settings) == ("modular",)
    questions = questions_for(data, ("modular",), 256, 50)
    assert not questions.skipped
    seen, unseen = questions.probes
    for probe, texts in ((seen, shown), (unseen, held_out)):
        assert len(probe.items) == 4 * MODULUS
        right = Counter(item.answer.said for item in probe.items)
        assert set(right.values()) == {4}, "who prefers a number is right no more often"
        assert probe.chance == pytest.approx(1 / MODULUS)
        answers = [item.answer.given + item.answer.said for item in probe.items]
        assert len(set(answers)) == 4 * MODULUS
        assert texts.issuperset(answers)
        for item in probe.items:
            assert {one.said for one in item.candidates} == set(SYMBOLS)
    assert not seen.held_out
    assert unseen.held_out


def test_other_texts_of_a_mixture_are_no_sums() -> None:
    sums = [one.text for one in documents(1)]
    shown, held_out = ["Once upon a time.", *sums[:100]], [*sums[50:200], "1-1=2", "A cat."]
    seen, unseen = modular_probes(shown, held_out, 256)
    for probe, among in ((seen, sums[:100]), (unseen, sums[100:200])):
        texts = [item.answer.given + item.answer.said for item in probe.items]
        assert set(texts) <= set(among)
        assert len(texts) == len({text[-1] for text in among})
    with pytest.raises(InputError, match=r"suite modular is for runs of builtin:modular"):
        modular_probes(["A cat."], sums, 256)
