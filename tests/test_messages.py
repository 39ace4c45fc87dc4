"""Printed commands can be pasted into a shell, and a mistyped name is answered by a similar one or by none."""

from __future__ import annotations

import ast
import os
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import etude
from etude.config import known_keys
from etude.messages import command, nearest_file, nearest_key, quoted

WORDS = [
    "plain",
    "with space",
    "it's",
    '"$HOME"',
    "a;rm -rf b",
    "line\nend\tand\x1bescape",
    "naïve 昔 🦊",
    "right\u202eleft",
    "caf\udce9",  # as Python names the byte 0xe9
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


def test_a_shell_reads_the_words_back() -> None:
    line = command(*WORDS)
    assert read_by_bash(line) == [b"etude", *(os.fsencode(word) for word in WORDS)]
    assert line.isprintable()


@settings(max_examples=25)
@given(st.lists(st.text(st.characters(exclude_characters="\0"), max_size=8), min_size=1, max_size=4))
def test_a_shell_reads_any_words_back(words: list[str]) -> None:
    # A surrogate that stands for no byte cannot come from a shell.
    words = [word.encode("utf-8", "replace").decode() for word in words]
    assert read_by_bash(" ".join(map(quoted, words))) == [word.encode() for word in words]


def test_a_path_is_not_taken_for_an_option() -> None:
    assert command("plot", Path("-rf")) == "etude plot ./-rf"


def test_no_message_names_a_command_with_an_unquoted_value() -> None:
    """A command with a value in it is made by `command` or `quoted`, wherever it is printed."""
    names = "train|generate|score|data|runs|plot|inspect|studio|eval|sweep|emergence|doctor"
    commands = re.compile(rf"\betude ({names})\b[^`:]*$|--(resume|config|fork|name|local) $")
    found = []
    for file in sorted(Path(etude.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.JoinedStr):
                continue
            for text, value in zip(node.values, node.values[1:], strict=False):
                if isinstance(text, ast.Constant) and isinstance(value, ast.FormattedValue):
                    calls = isinstance(value.value, ast.Call) and isinstance(value.value.func, ast.Name)
                    name = value.value.func.id if calls else ""  # type: ignore[attr-defined]
                    if commands.search(text.value) and name not in ("command", "quoted"):
                        found.append(f"{file.name}: {text.value!r}")
    assert found == []


@pytest.mark.parametrize(
    ("name", "there", "meant"),
    [
        ("storys.txt", ["poems.txt", "stories.txt"], "stories.txt"),
        ("stories", ["stories.txt", "README.md"], "stories.txt"),
        ("stories.text", ["stories.txt"], "stories.txt"),
        ("Stories.TXT", ["stories.txt"], "stories.txt"),
        ("diary.txt", ["notes.txt", "setup.txt"], None),  # alike in their endings only
        ("absent.txt", ["good.txt", "binary.txt", "empty"], None),
        ("corpus.jsonl", ["config.jsonl"], None),
        ("a.txt", ["b.txt"], None),
        ("x", [], None),
    ],
)
def test_the_file_that_was_meant(name: str, there: list[str], meant: str | None) -> None:
    assert nearest_file(name, there) == meant


@pytest.mark.parametrize(
    ("key", "meant"),
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
def test_the_setting_that_was_meant(key: str, meant: str | None) -> None:
    assert nearest_key(key, known_keys()) == meant
