"""Normalisation and filters."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.data.corpus.clean import Form, filters, judge, normalise

ANY_TEXT = st.text(st.characters(codec=None, categories=None), max_size=200)


@given(ANY_TEXT, st.sampled_from(["NFC", "NFKC", "none"]))
def test_clean_text_can_be_written_and_stays_clean(text: str, form: Form) -> None:
    clean = normalise(text, form)
    clean.encode("utf-8")
    assert "\r" not in clean
    assert all(char in "\t\n" or unicodedata.category(char) not in {"Cc", "Cs"} for char in clean)
    assert clean.split("\n") == (
        [*clean.splitlines(), ""] if clean.endswith("\n") or not clean else clean.splitlines()
    )
    if form != "none":
        assert unicodedata.is_normalized(form, clean)
    if not clean.startswith("\ufeff"):
        assert normalise(clean, form) == clean


@given(
    st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S", "Zs"], include_characters="\n\t"))
)
def test_plain_text_is_left_alone(text: str) -> None:
    assert normalise(text, "NFKC") == text


def test_what_normalisation_changes() -> None:
    assert normalise("\ufeffa\r\nb\rc\u2028d\x0ce\x00\x1b\x7f", "none") == "a\nb\nc\nd\ne"
    assert normalise("e\u0301 ﬁ", "NFC") == "é ﬁ"
    assert normalise("e\u0301 ﬁ", "NFKC") == "é fi"
    assert normalise("e\u0301\ud83d", "none") == "e\u0301\ufffd"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a good document", ""),
        (" \n\t\u00a0", "blank"),
        ("ab", "shorter than 5 characters"),
        ("caf\ufffd \ufffd\ufffd", "unreadable characters"),
        ("one \ufffd in a long enough text", ""),
    ],
)
def test_filters_say_why(text: str, reason: str) -> None:
    assert judge(text, filters(5)) == (not reason, reason)
