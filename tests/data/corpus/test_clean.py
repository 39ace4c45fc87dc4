"""Normalisation and filters."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.data.corpus.clean import Form, filters, judge, normalise
from etude.data.corpus.combining import _FIRST, _LAST, JOINER, MAX_MARKS, is_mark

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
    ("text", "clean", "changed"),
    [
        ("\ufeffplain\r\n", "plain\n", {}),
        ("a\0b\0", "ab", {"NUL characters removed": 2}),
        ("a\x07\x1b[1m\x7f", "a[1m", {"other control characters removed": 3}),
        ("one\ufefftwo", "onetwo", {"byte order marks inside a text removed": 1}),
        ("\ufeff\ufeffone", "one", {"byte order marks inside a text removed": 1}),
        # windows-1252 that was once decoded as iso-8859-1
        (
            "don\x92t \x93go\x94 \x96 3 \x80\x85",
            "don\u2019t \u201cgo\u201d \u2013 3 \u20ac\u2026",
            {"C1 control characters read as windows-1252": 6},
        ),
        ("one\x85two", "one\ntwo", {}),  # alone, it is the line end of old mainframes
        ("a\x90b", "ab", {"other control characters removed": 1}),
        ("a\ud83d", "a\ufffd", {"halves of surrogate pairs replaced": 1}),
    ],
)
def test_nothing_is_removed_or_replaced_silently(text: str, clean: str, changed: dict[str, int]) -> None:
    counts: Counter[str] = Counter()
    assert normalise(text, "NFC", counts) == clean
    assert counts == changed


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


@pytest.mark.parametrize("form", ["NFC", "NFKC"])
@given(st.text(st.sampled_from("a\u0301\u0323\u0344\u0f73\u0f71\uff9e\u3099\u034fé가"), max_size=150))
def test_runs_of_combining_marks_are_bounded(form: Form, text: str) -> None:
    clean = normalise(text, form)
    runs = re.findall(f"(?:{'|'.join(MARKS)})+", clean)
    assert max(map(len, runs), default=0) <= MAX_MARKS + 2  # a letter may decompose into more characters
    assert normalise(clean, form) == clean
    assert unicodedata.is_normalized(form, clean)
    short = not re.search(f"(?:{'|'.join(MARKS)}|[\u0344\u0f73\uff9e]){{31,}}", text)
    if short:
        assert clean == unicodedata.normalize(form, text)


MARKS = ["\u0301", "\u0323", "\u0308", "\u0f71", "\u0f72", "\u3099"]


def test_what_is_done_to_a_long_run_is_counted() -> None:
    changed: Counter[str] = Counter()
    text = "a" + "\u0301\u0323" * 200_000  # took minutes, because its marks are sorted by insertion
    clean = normalise(text, "NFC", changed)
    assert changed == {"long runs of combining marks parted": 400_000 // MAX_MARKS}
    assert sorted(clean.replace(JOINER, "")) == sorted(unicodedata.normalize("NFC", text[:3]) + text[3:])


def test_the_marks_that_are_looked_for_are_all_there_are() -> None:
    for form in ("NFD", "NFKD"):
        outside = [*range(_FIRST), *range(_LAST, sys.maxunicode + 1)]
        assert not any(is_mark(chr(code), form) for code in outside if not 0xD800 <= code < 0xE000)
