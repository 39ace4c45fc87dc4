"""The preview of training data: every token in its colour, every row counted."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from bare_models import make_model
from chat_templates import BY_NAME, save_model_tokenizer
from etude.cli.main import app
from etude.data.conversations.encode import encode_example
from etude.data.conversations.formats import example_of
from etude.data.conversations.preview import Preview, preview, shown_tokens, states_of
from etude.data.conversations.preview_output import preview_page, row_text
from etude.data.conversations.shards import OTHER_KIND
from etude.data.conversations.template import template_of
from etude.data.reading.options import ReadingOptions
from etude.data.reading.sources import open_sources
from etude.data.tokens.published import model_tokenizer
from etude.data.tokens.tokenizer import EtudeTokenizer

TURNS = [
    {"role": "user", "content": "How are you? <script>"},
    {"role": "assistant", "content": "Fine 🙂 \x1b[2J"},
    {"role": "user", "content": "And now?"},
    {"role": "assistant", "content": "Good night! 猫"},
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> EtudeTokenizer:
    return model_tokenizer(save_model_tokenizer(tmp_path_factory.mktemp("model"), BY_NAME["chatml"]))


def previewed(folder: Path, entries: list[Any], tokenizer: EtudeTokenizer, **chosen: int) -> Preview:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in entries))
    sources = open_sources(
        [str(path)], options=ReadingOptions(examples=True), max_bytes=None, seed=1, spool=folder
    )
    return preview(
        sources, tokenizer, template_of(tokenizer), "assistant", **{"context": 1000, "rows": 10, **chosen}
    )


def test_every_token_is_shown_in_its_colour(tmp_path: Path, tokenizer: EtudeTokenizer) -> None:
    result = previewed(tmp_path, [{"messages": TURNS}], tokenizer)
    (row,) = result.rows
    whole = encode_example(
        example_of({"messages": TURNS}, lambda t: t.replace("\x1b", "")),
        tokenizer,
        template_of(tokenizer),
        "assistant",
    )
    assert "".join(token.text for token in row.tokens) == tokenizer.decode(whole.ids)
    trained = "".join(token.text for token in row.tokens if token.state == "trained")
    assert trained == "Fine 🙂 [2J<|im_end|>Good night! 猫<|im_end|>"
    assert {token.state for token in row.tokens} == {"context", "trained"}
    assert (result.tokens, result.trained) == (len(whole.ids), int(whole.trained.sum()))


def test_what_is_cut_and_what_is_dropped_is_counted_and_shown(
    tmp_path: Path, tokenizer: EtudeTokenizer
) -> None:
    rows = [
        {"messages": TURNS},
        {"messages": TURNS[:1]},
        {"text": "Once"},
        {"tools": [1]},
        {"question": "x" * 500, "answer": "y"},
    ]
    whole = encode_example(example_of(rows[0]), tokenizer, template_of(tokenizer), "assistant")
    context = len(whole.ids) - 3
    result = previewed(tmp_path, rows, tokenizer, context=context)
    first, text, last = result.rows
    assert result.truncated == 1
    assert previewed(tmp_path, rows[:1], tokenizer, context=len(whole.ids) - 1).truncated == 0
    assert "Good night!" in "".join(t.text for t in first.tokens if t.state == "truncated")
    assert {t.state for t in text.tokens} == {"context", "trained"}
    assert {t.state for t in last.tokens} == {"dropped"}
    assert last.problem in result.dropped
    assert result.dropped == {"no assistant turn": 1, "tools": 1, last.problem: 1}
    lines = "\n".join(result.lines())
    assert "2 conversation, 1 text" in lines
    assert "rows.jsonl:2" in lines
    assert f"({result.trained / result.tokens:.1%})" in lines


def test_only_the_first_rows_are_shown_and_all_are_counted(tmp_path: Path, tokenizer: EtudeTokenizer) -> None:
    entries = [{"question": f"{number}?", "answer": "Yes."} for number in range(7)]
    result = previewed(tmp_path, entries, tokenizer, rows=2)
    assert len(result.rows) == 2
    assert result.kinds == {"conversation": 7}


def test_the_page_is_whole_and_safe(tmp_path: Path, tokenizer: EtudeTokenizer) -> None:
    result = previewed(tmp_path, [{"messages": TURNS}, {"messages": TURNS[:1]}], tokenizer)
    page = preview_page(result, "rows <b> for model")
    assert "<script" not in page
    assert "<b>" not in page
    assert not re.search(r"(src=|href|url\()", page), "nothing is loaded from elsewhere"
    assert "prefers-color-scheme: dark" in page
    shown = re.findall(r'<span class="(context|trained)" title="[\d ]*">([^<]*)</span>', page)
    trained = "".join(html.unescape(text) for state, text in shown if state == "trained")
    assert trained == "Fine 🙂 [2J<|im_end|>Good night! 猫<|im_end|>"
    assert "\x1b" not in page + row_text(result.rows[0]).plain


@given(st.text(min_size=1).filter(str.strip), st.integers(1, 200))
def test_no_token_is_lost_for_any_text(tokenizer: EtudeTokenizer, content: str, context: int) -> None:
    example = example_of({"question": "x", "answer": content.encode("utf-8", "replace").decode()})
    whole = encode_example(example, tokenizer, template_of(tokenizer), "assistant")
    states = states_of(whole, context)
    tokens = list(shown_tokens(whole, states, tokenizer))
    assert [number for token in tokens for number in token.ids] == whole.ids
    assert [token.state for token in tokens for _ in token.ids] == states
    used = sum(state in {"context", "trained"} for state in states)
    assert used in (0, len(whole.ids))  # one answer fits whole, or not at all
    assert [state == "trained" for state in states[:used]] == whole.trained.tolist()[:used]


def test_the_fewer_of_pairs_and_other_rows_are_dropped_as_in_training(
    tmp_path: Path, tokenizer: EtudeTokenizer
) -> None:
    pairs = [{"prompt": f"{n}?", "chosen": "Yes.", "rejected": "No."} for n in range(3)]
    talk = {"question": "Who?", "answer": "Ada."}
    few = previewed(tmp_path, [talk, *pairs, pairs[0]], tokenizer)
    assert few.kinds == {"preference": 3, "conversation": 1}
    assert [row.problem for row in few.rows] == [OTHER_KIND[True], "", "", ""]
    assert {token.state for token in few.rows[0].tokens} == {"dropped"}
    assert few.dropped == {OTHER_KIND[True]: 1, "exact copy": 1}
    assert few.such_as[OTHER_KIND[True]].endswith(":1")
    alone = previewed(tmp_path, pairs, tokenizer)
    assert (few.tokens, few.trained) == (alone.tokens, alone.trained)


def test_the_command_previews_for_a_model_and_gives_one_without_a_template_chatml(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", "qwen2")
    data = tmp_path / "faq.jsonl"
    data.write_text(json.dumps({"messages": TURNS}) + "\n")
    page = tmp_path / "page.html"
    result = CliRunner().invoke(
        app, ["data", "preview", str(data), "--from", str(model), "--html", str(page)]
    )
    assert result.exit_code == 0, result.output
    assert "Good night!" in result.output
    assert "examples: 1 conversation" in result.output
    assert "training gives it ChatML" in result.output
    assert "<|im_start|>" in html.unescape(page.read_text())


def test_the_command_previews_what_is_piped_in(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", "qwen2")
    rows = json.dumps({"messages": TURNS}) + "\n" + json.dumps({"text": "Once."}) + "\n"
    result = CliRunner().invoke(app, ["data", "preview", "-", "--from", str(model)], input=rows)
    assert result.exit_code == 0, result.output
    assert "examples: 1 conversation, 1 text" in result.output
    assert "stdin: read as rows of JSON" in result.output
    told = CliRunner().invoke(
        app, ["data", "preview", "-", "--from", str(model)], input='{"a": a text}\nmore\n'
    )
    assert "examples: 1 text" in told.output


def test_the_command_says_what_is_wrong_in_one_line(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", "qwen2")
    data = tmp_path / "faq.jsonl"
    data.write_text(json.dumps({"title": "x"}) + "\n")
    result = CliRunner().invoke(app, ["data", "preview", str(data), "--from", str(model)])
    assert result.exit_code != 0
    assert "no usable text" in str(result.exception)
    assert "no known format" in str(result.exception)
