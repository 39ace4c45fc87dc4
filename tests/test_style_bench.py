"""bench/style.py: a classifier of writers that is right where they differ, and at chance where they do not."""

from __future__ import annotations

import importlib
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from etude.data.primer.generator import generate


@pytest.fixture(scope="module")
def style() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path, str(Path(__file__).parent.parent / "bench")])
        yield importlib.import_module("style")


def texts(seed: int, count: int, vowel: str = "") -> list[str]:
    """Return tales of the primer; with ``vowel``, each e is one."""
    tales = [tale.text[:200] for _, tale in zip(range(count), generate(seed), strict=False)]
    return [tale.replace("e", vowel) for tale in tales] if vowel else tales


def test_writers_with_other_spellings_are_told_apart_whatever_the_length(style: Any) -> None:
    recogniser = style.Recogniser({"plain": texts(1, 40), "odd": texts(2, 80, "o")})
    totals = [counts.total() for counts in recogniser.counts.values()]
    assert totals[0] == totals[1], "the one with more text is not favoured"
    for name, tested in (("plain", texts(3, 30)), ("odd", texts(4, 30, "o"))):
        assert [recogniser.writer(text) for text in tested] == [name] * 30
        assert [recogniser.writer(text[:40]) for text in tested].count(name) > 27
    assert recogniser.writer("\u4e00\u4e01") == "odd", (
        "a text of unknown characters is never the first writer's"
    )


def test_one_writer_under_two_names_is_no_writer(style: Any) -> None:
    tales = texts(5, 240)
    random.Random(1).shuffle(tales)
    recogniser = style.Recogniser({"one": tales[:80], "other": tales[80:160]})
    taken = Counter(map(recogniser.writer, tales[160:]))
    assert 25 < taken["one"] < 55


def test_the_scores_are_those_of_multinomial_naive_bayes(style: Any) -> None:
    naive = pytest.importorskip("sklearn.naive_bayes")
    vectorizers = pytest.importorskip("sklearn.feature_extraction.text")
    plain, odd = texts(1, 20), texts(1, 20, "o")
    recogniser = style.Recogniser({"plain": plain, "odd": odd})
    vectorizer = vectorizers.CountVectorizer(analyzer=style.grams)
    fitted = naive.MultinomialNB(alpha=style.SMOOTHING, fit_prior=False).fit(
        vectorizer.fit_transform([*plain, *odd]), ["plain"] * 20 + ["odd"] * 20
    )
    for text in texts(6, 10):
        own, expected = (
            recogniser.scores(text),
            fitted.predict_joint_log_proba(vectorizer.transform([text]))[0],
        )
        difference = (
            expected[list(fitted.classes_).index("plain")] - expected[list(fitted.classes_).index("odd")]
        )
        assert own["plain"] - own["odd"] == pytest.approx(difference)


def test_six_words_in_a_row_are_copied(style: Any) -> None:
    training = ["He hath faults, with surplus, to tire in repetition."]
    assert style.copied("And HE hath faults with surplus to spare.", training)
    assert not style.copied("He hath faults, with surplus; but to tire in repetition", ["He hath faults."])
    assert not style.copied("He hath many faults, with surplus, to tire.", training)
