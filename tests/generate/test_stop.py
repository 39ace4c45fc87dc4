"""Stop strings: the text ends before the first complete one, for any division into pieces, and no part is emitted."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from etude.errors import InputError
from etude.generate.stop import GeneratedText, StopStrings, stop_strings

LETTERS = st.sampled_from("ab\n")


def expected(text: str, stops: list[str]) -> tuple[str, bool]:
    """Letter by letter: the first position where a stop string ends, and the longest one that ends there."""
    for end in range(1, len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            return text[: end - max(map(len, ending))], True
    return text, False


@given(
    text=st.text(LETTERS, max_size=25),
    stops=st.lists(st.text(LETTERS, min_size=1, max_size=4), max_size=3),
    cuts=st.lists(st.integers(0, 25), max_size=12),
)
def test_any_pieces_give_the_text_before_the_first_stop(text: str, stops: list[str], cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    stopper = StopStrings(stops)
    shown = ""
    whole, stopped = expected(text, stops)
    for begin, end in pairwise(places):
        shown += stopper.feed(text[begin:end])
        assert whole.startswith(shown)  # what is shown is never taken back
        if not stopper.stopped:  # and only what may begin a stop string is held back
            held = text[len(shown) : end]
            assert not held or any(stop.startswith(held) for stop in stops)
    assert (shown + stopper.finish(), stopper.stopped) == (whole, stopped)
    if stopped:
        assert stopper.feed("ab") == ""


def byte_tokens() -> Tokenizer:
    tokenizer = Tokenizer(
        models.BPE(vocab={c: n for n, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, merges=[])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def test_a_stop_string_within_and_across_tokens() -> None:
    tokenizer = byte_tokens()
    text = GeneratedText(tokenizer, ["é!", "stop"])
    pieces = [text.feed(token) for token in tokenizer.encode("café sté!op").ids]
    assert pieces == ["c", "a", "f", "", "", "é ", "", "", "", "st", "", "", ""]
    assert text.stopped
    assert text.finish() == ""


def test_the_end_of_the_prompt_is_not_repeated() -> None:
    tokenizer = byte_tokens()
    text = GeneratedText(tokenizer, [], given=" ")
    assert [text.feed(token) for token in tokenizer.encode("  a ").ids] == ["", " ", "a", " "]


def test_half_a_character_at_the_end_is_shown_as_one() -> None:
    tokenizer = byte_tokens()
    text = GeneratedText(tokenizer, ["xy"])
    assert [text.feed(token) for token in tokenizer.encode("xé").ids[:2]] == ["", ""]
    assert text.finish() == "x\ufffd"


@pytest.mark.parametrize(
    ("given_stop", "actual"),
    [(None, ()), ((), ()), ("\n", ("\n",)), (["a", "bc"], ("a", "bc"))],
)
def test_one_or_several(given_stop: Any, actual: tuple[str, ...]) -> None:
    assert stop_strings(given_stop) == actual


@pytest.mark.parametrize("bad", ["", ["a", ""], 3, [3], [None], b"a"])
def test_invalid_stop_strings_are_refused(bad: Any) -> None:
    with pytest.raises(InputError, match="stop") as caught:
        stop_strings(bad)
    assert "\n" not in str(caught.value)
