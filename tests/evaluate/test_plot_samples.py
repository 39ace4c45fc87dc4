"""The choice of samples to show, and any text as lines that fit."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from etude.evaluate.loss_plot.samples import choose_samples
from etude.run.events import SampleEvent
from etude.show.picture_text import columns_of, printable, wrapped


def at(step: int, prompt: str = "") -> SampleEvent:
    return SampleEvent(step=step, tokens_seen=step, wall_time=0.0, prompt=prompt, text="x")


class TestChoice:
    def test_early_midway_in_powers_of_ten_and_last(self) -> None:
        samples = [at(step) for step in (0, 5, 20, 100, 500, 1000)]
        assert [sample.step for sample in choose_samples(samples)] == [0, 20, 1000]

    def test_few(self) -> None:
        assert choose_samples([]) == []
        assert [s.step for s in choose_samples([at(7)])] == [7]
        assert [s.step for s in choose_samples([at(7), at(9)])] == [7, 9]

    def test_of_one_prompt(self) -> None:
        samples = [at(step, prompt) for step in (0, 10, 100) for prompt in ("a", "b")]
        assert [(s.step, s.prompt) for s in choose_samples(samples)] == [(0, "b"), (10, "b"), (100, "b")]


class TestText:
    def test_escapes(self) -> None:
        shown = printable("a\tb\r\nc\x07\u202e\ud800\U0001f600é", lambda character: character != "\U0001f600")
        assert shown == "a    b\nc\\x07\\u202e\\ud800\\U0001f600é"

    @given(st.text(st.characters(codec=None)))
    def test_nothing_hidden_is_left(self, text: str) -> None:
        shown = printable(text, lambda character: ord(character) < 0x2000)
        assert all(c == "\n" or (unicodedata.category(c)[0] != "C" and ord(c) < 0x2000) for c in shown)

    @given(st.text(st.sampled_from("ab  \n练éo\u0301")), st.integers(4, 20), st.integers(1, 5))
    def test_lines_fit_and_begin_with_the_text(self, text: str, columns: int, max_lines: int) -> None:
        lines = wrapped(text, columns, max_lines)
        assert len(lines) <= max_lines
        assert all(line.strip() and columns_of(line) <= columns for line in lines)
        everything = wrapped(text, columns, 10**6)
        assert "".join("".join(everything).split()) == "".join(text.split())
        assert lines[:-1] == everything[: len(lines)][:-1]

    def test_breaks_at_blanks_and_says_when_it_stops(self) -> None:
        assert wrapped("one two three four", 9, 9) == ["one two", "three", "four"]
        assert wrapped("one two three four", 9, 2) == ["one two", "three …"]
        assert wrapped("Ann " + "x" * 20, 10, 9) == ["Ann xxxxxx", "x" * 10, "x" * 4]
