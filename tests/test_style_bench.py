"""bench/style.py: a classifier of writers that is right where they differ, and at chance where they do not."""

from __future__ import annotations

import importlib
import math
import random
import sys
from collections import Counter
from fractions import Fraction
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
        assert [recogniser.writer(text) for text in tested].count(name) > 27
        assert [recogniser.writer(text[:40]) for text in tested].count(name) > 22
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
    recogniser = style.Recogniser({"plain": ["abcd bcda"], "odd": ["abcd abcd"]})
    counts = {"plain": " abcd bcda ", "odd": " abcd abcd "}
    every = {text[at : at + 4] for text in counts.values() for at in range(8)}
    for text in ("abcd", "bcda abcd zz"):
        whole = f" {text} "
        asked = [gram for at in range(len(whole) - 3) if (gram := whole[at : at + 4]) in every]
        for name, own in counts.items():
            grams = [own[at : at + 4] for at in range(8)]
            likelihood = Fraction(1)
            for gram in asked:
                likelihood *= (grams.count(gram) + Fraction(1, 2)) / (8 + Fraction(len(every), 2))
            assert recogniser.scores(text)[name] == pytest.approx(math.log(likelihood))


def test_six_words_in_a_row_are_copied(style: Any) -> None:
    training = ["He hath faults, with surplus, to tire in repetition."]
    assert style.copied("And HE hath faults with surplus to spare.", training)
    assert not style.copied("He hath faults, with surplus; but to tire in repetition", ["He hath faults."])
    assert not style.copied("He hath many faults, with surplus, to tire.", training)
