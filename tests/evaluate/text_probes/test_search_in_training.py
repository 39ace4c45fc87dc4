"""The one pass over the training text, against plain search."""

from __future__ import annotations

import random
import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.evaluate.text_probes import training
from etude.evaluate.text_probes.training import WINDOW, search, stretches


@given(st.integers(0, 10**6), st.sampled_from(["ab ", "अ आि", "中文。\n", "a\U0001d538 "]))
def test_everything_in_the_text_is_found_and_nothing_else(seed: int, letters: str) -> None:
    rng = random.Random(seed)
    documents = ["".join(rng.choices(letters, k=rng.randrange(0, 90))) for _ in range(6)]
    inside = [d[at : at + 20] for d in documents for at in (0, 7) if len(d) > at + 20]
    wanted = frozenset([*inside, *("".join(rng.choices(letters, k=20)) for _ in range(9))])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "PIECE_CHARS", 32)  # many pieces, many cuts
        found = search(documents, frozenset(), wanted).found
    assert found == {one for one in wanted if any(one in document for document in documents)}


def test_nothing_is_found_across_documents() -> None:
    found = search(["the quick brown ", "fox jumps over"], frozenset(), frozenset(["quick brown fox jumps"]))
    assert not found.found


def test_words_are_counted_whole_and_in_any_case() -> None:
    text = "Fox, fox—FOX 'fox' foxes firefox fox's\n" * 40
    wanted = frozenset({"fox", "foxes", "absent"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "PIECE_CHARS", 50)
        found = search([text, text[:39]], wanted, frozenset()).counts
    assert found == {
        w: n for w, n in Counter(re.findall(r"\w+", text.lower() + text[:39].lower())).items() if w in wanted
    }


def test_thirteen_words_in_a_row_make_an_item_known() -> None:
    words = [f"word{at}" for at in range(15)]
    found = stretches(" ".join(words) + ".")
    assert found == tuple(" ".join(words[at : at + 13]) for at in range(3))
    assert stretches("only a few words of a line") == ("only a few words of a line",)


def test_short_texts_cannot_be_looked_for() -> None:
    with pytest.raises(ValueError, match=f"at least {WINDOW}"):
        search(["text"], frozenset(), frozenset(["short"]))
