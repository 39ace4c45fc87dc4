"""Printed commands can be pasted into a shell, and a similar name is suggested for a mistyped one."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import etude
from etude.config import known_keys
from etude.messages import command, nearest_file, nearest_key, quoted, suggest_key

WORDS = [
    "plain",
    "with space",
    "it's",
    '"$HOME"',
    "a;rm -rf b",
    "line\nend\tand\x1bescape",
    "naïve 昔 🦊",
    "right\u202eleft",
    "caf\udce9",  # Python's representation of the byte 0xe9
    "",
    "*",
    "back\\slash\udcff'",
]


def read_by_bash(line: str) -> list[bytes]:
    printed = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {line}".encode()],
        capture_output=True,
        check=True,
        env={"LC_ALL": "C.UTF-8"},
    )
    return printed.stdout.split(b"\0")[:-1]


def test_a_shell_reads_quoted_words_back() -> None:
    line = command(*WORDS)
    assert read_by_bash(line) == [b"etude", *(os.fsencode(word) for word in WORDS)]
    assert line.isprintable()


@settings(max_examples=25)
@given(st.lists(st.text(st.characters(exclude_characters="\0"), max_size=8), min_size=1, max_size=4))
def test_a_shell_reads_any_quoted_words_back(words: list[str]) -> None:
    # Replace lone surrogates that represent no byte: a shell cannot pass them.
    words = [word.encode("utf-8", "replace").decode() for word in words]
    assert read_by_bash(" ".join(map(quoted, words))) == [word.encode() for word in words]


def test_a_path_is_not_parsed_as_an_option() -> None:
    assert command("plot", Path("-rf")) == "etude plot ./-rf"


def test_no_message_has_a_command_with_an_unquoted_value() -> None:
    """Every printed command with a value in it uses `command` or `quoted`."""
    names = "train|generate|score|data|runs|plot|inspect|studio|eval|sweep|emergence|doctor"
    commands = re.compile(rf"\betude ({names})\b[^`:]*$|--(resume|config|fork|name|local) $")
    unquoted = []
    for file in sorted(Path(etude.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.JoinedStr):
                continue
            for text, value in zip(node.values, node.values[1:], strict=False):
                if isinstance(text, ast.Constant) and isinstance(value, ast.FormattedValue):
                    is_call = isinstance(value.value, ast.Call) and isinstance(value.value.func, ast.Name)
                    name = value.value.func.id if is_call else ""  # type: ignore[attr-defined]
                    if commands.search(text.value) and name not in ("command", "quoted"):
                        unquoted.append(f"{file.name}: {text.value!r}")
    assert unquoted == []


@pytest.mark.parametrize(
    ("name", "files", "suggestion"),
    [
        ("storys.txt", ["poems.txt", "stories.txt"], "stories.txt"),
        ("stories", ["stories.txt", "README.md"], "stories.txt"),
        ("stories.text", ["stories.txt"], "stories.txt"),
        ("Stories.TXT", ["stories.txt"], "stories.txt"),
        ("diary.txt", ["notes.txt", "setup.txt"], None),  # only the endings are similar
        ("absent.txt", ["good.txt", "binary.txt", "empty"], None),
        ("corpus.jsonl", ["config.jsonl"], None),
        ("a.txt", ["b.txt"], None),
        ("x", [], None),
    ],
)
def test_the_suggested_file(name: str, files: list[str], suggestion: str | None) -> None:
    assert nearest_file(name, files) == suggestion


@pytest.mark.parametrize(
    ("key", "suggestion"),
    [
        ("train.ler", "train.lr"),
        ("lr", "train.lr"),
        ("train.learning_rate", "train.lr"),
        ("train.batch_size", "train.batch_rows"),
        ("model.n_layer", "model.num_hidden_layers"),
        ("train.seed", "run.seed"),
        ("train.banana", None),
        ("train.xyz", None),
    ],
)
def test_the_suggested_setting(key: str, suggestion: str | None) -> None:
    assert nearest_key(key, known_keys()) == suggestion


def test_a_name_of_any_length_is_compared_in_time() -> None:
    """difflib alone would take minutes."""
    before = time.process_time()
    assert suggest_key("train." + "lr" * 1_000_000, known_keys()) == "`etude settings` lists all of them"
    assert time.process_time() - before < 10
