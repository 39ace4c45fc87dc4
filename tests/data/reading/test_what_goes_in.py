"""docs/what-goes-in.md agrees with the code."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from etude.config import known_keys, load_settings
from etude.data.conversations.conversation import SAMPLED
from etude.data.conversations.formats import CONVERSATION_KEYS, example_of, is_conversation
from etude.data.corpus.combining import MAX_MARKS
from etude.data.corpus.duplicates import NEAR_MAX_BYTES, NEAR_MAX_DOCUMENTS
from etude.data.reading import documents, streams
from etude.data.reading.binary import REFUSED
from etude.data.reading.encodings import DETECTED
from etude.data.reading.formats import KNOWN_ENDINGS
from etude.data.reading.options import DELIMITERS, ReadingOptions, codec_of
from etude.data.reading.piece import MAX_ROW_CHARS
from etude.run import RunFolder
from etude.run.weight_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from etude.text_settings import DataSettings
from etude.train.run_text import text_with_progress

PAGE = (Path(__file__).parents[3] / "docs" / "what-goes-in.md").read_text()


def marked(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def rows(header: str, second: str) -> list[list[str]]:
    at = PAGE.index(f"| {header} | {second}")
    lines = PAGE[at:].split("\n\n", 1)[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]


def test_every_format_is_listed_with_what_it_needs() -> None:
    listed = {ending: row[2] for row in rows("endings", "one document") for ending in marked(row[0])}
    assert tuple(listed) == KNOWN_ENDINGS
    needs = {ending for ending, need in listed.items() if documents.INSTALL in need}
    assert needs == {".pdf", ".docx", ".rtf"}


def test_every_format_of_examples_is_listed() -> None:
    listed = [marked(row[0]) for row in rows("keys", "what it is")]
    assert {key for keys in listed for key in keys} == {
        *CONVERSATION_KEYS,
        "text",
        "rejected",
        "prompt",
        "output",
        "answer",
    }
    for keys in listed:
        row = {key: [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}] for key in keys}
        if "messages" not in keys and "conversations" not in keys:
            row = {key: f"some {key}" for key in keys}  # type: ignore[misc]
        assert is_conversation(row) == (keys != ["text"])
        example_of(row)


def test_every_refused_format_is_listed_with_what_to_do() -> None:
    listed = {ending: row[1] for row in rows("endings", "what to do") for ending in marked(row[0])}
    assert listed == {ending: advice for ending, (_, advice) in REFUSED.items()}


def test_every_detected_encoding_is_listed_and_known() -> None:
    listed = [name for row in rows("detected", "scripts") for name in marked(row[0])]
    assert sorted(listed) == sorted(DETECTED)
    assert len({codec_of(name) for name in listed}) == len(listed)


def test_every_setting_of_the_readers_is_listed() -> None:
    listed = {marked(row[0])[0]: marked(row[1]) for row in rows("setting", "values")}
    fields = set(ReadingOptions.__dataclass_fields__) - {
        "normalization",
        "examples",
    }  # not of the readers of text
    assert set(listed) == {f"data.{name}" for name in fields}
    assert set(listed) <= set(known_keys())
    assert set(DELIMITERS) <= set(listed["data.csv_delimiter"])
    assert DataSettings().text_field == listed["data.text_field"][0]


def test_the_limits_are_those_of_the_code() -> None:
    numbers = [
        [int(n.replace(",", "")) for n in re.findall(r"\b\d[\d,]*\b", row[1])]
        for row in rows("what", "limit")
    ]
    assert numbers == [
        [MAX_ROW_CHARS],
        [MAX_ROW_CHARS],
        [streams.FREE_EXPANSION_BYTES, streams.MOST_EXPANSION],
        [documents.MAX_UNPACKED_BYTES],
        [NEAR_MAX_BYTES, NEAR_MAX_DOCUMENTS],
        [MAX_MARKS],
    ]


def test_the_files_of_tuned_runs_are_those_of_the_code() -> None:
    run = RunFolder(Path("run"))
    _, of_runs, of_checkpoints, of_adapters = PAGE.split("| file | holds |\n")[1:]
    listed = [
        [line.split("`")[1] for line in part.splitlines() if line.startswith("| `")]
        for part in (of_runs, of_adapters)
    ]
    of_run = [run.tuning.path.name, "derived/tuning", SAMPLED, run.constants_file.name]
    assert listed == [of_run, [ADAPTER_CONFIG, ADAPTER_WEIGHTS]]
    assert "config.json" in of_checkpoints


def test_the_commands_are_settings_that_are_understood() -> None:
    rules = DataSettings.model_validate({"encoding": "russian/*.txt=koi8-r,notes.txt=windows-1252"}).encoding
    options = ReadingOptions(encoding=rules)
    assert options.encoding_for("books/russian/a.txt") == "koi8-r"
    assert options.encoding_for("books/notes.txt") == "cp1252"
    assert options.encoding_for("books/other.txt") is None
    assert "russian/*.txt=koi8-r,notes.txt=windows-1252" in PAGE


@pytest.mark.parametrize("value", ["comma", ";", "tab", "\t", "auto"])
def test_delimiters_that_are_understood(value: str) -> None:
    assert DataSettings.model_validate({"csv_delimiter": value}).csv_delimiter == value


def test_what_was_assumed_is_printed_before_training(tmp_path: Path) -> None:
    lines = [f"{n};Le garçon numéro {n} “est” là; déjà {n * n} fois." for n in range(400)]
    text = tmp_path / "old.csv"
    text.write_bytes("\n".join(["id;text", *lines]).encode("cp1252"))
    values = {"tokenizer.vocab_size": 300, "data.workers": 1, "data.sources": (str(text),)}
    printed = io.StringIO()
    text_with_progress(load_settings(None, [], values), Console(file=printed))
    assert f"{text}: not UTF-8, read as windows-1252" in printed.getvalue()
    assert "; otherwise --set data.encoding=" in printed.getvalue()
    assert f"{text}: table with cells separated by semicolon; otherwise" in printed.getvalue()
