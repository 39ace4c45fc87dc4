"""JSON in every common shape, and the fields inside it."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etude.data.reading import json_rows, piece
from etude.data.reading.formats import read_file
from etude.data.reading.options import ReadingOptions
from etude.data.reading.piece import SourceLog

ROW = {
    "title": "T",
    "a": {"b": "deep", "c": 5},
    "turns": [{"say": "hi"}, {"say": "ho"}, {}],
    "lines": ["one", "two"],
    "a.b": "flat",
    "x, y": "odd",
    "none": None,
}


def read(tmp_path: Path, content: str, name: str, field: str = "text") -> tuple[list[str], SourceLog]:
    path = tmp_path / name
    path.write_text(content)
    log = SourceLog()
    return [p.document.text for p in read_file(path, name, ReadingOptions(field), log)], log


@pytest.mark.parametrize(
    ("content", "note"),
    [
        ('[{"text": "a"}, {"text": "b"}]', ""),
        (' [\n"a",\n"b"\n]\n', ""),
        ('{"text": "a"}\n{"text": "b"}\n', "JSON lines"),
        ('{"version": 1, "rows": [{"text": "a"}, {"text": "b"}]}', "entries of 'rows'"),
    ],
)
def test_every_shape_of_a_json_file(tmp_path: Path, content: str, note: str) -> None:
    texts, log = read(tmp_path, content, "a.json")
    assert texts == ["a", "b"]
    assert note in " ".join(log.notes())
    assert not log.skipped


def test_one_object_is_one_document(tmp_path: Path) -> None:
    assert read(tmp_path, json.dumps({"text": "a", "n": [1]}, indent=2), "a.json")[0] == ["a"]


def test_a_long_array_is_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_rows, "_READ_CHARS", 7)
    rows = [{"text": f"né {n}" * (n % 5), "n": n} for n in range(50)]
    assert read(tmp_path, json.dumps(rows), "a.json")[0] == [str(row["text"]) for row in rows]


@pytest.mark.parametrize(
    "content", ['[{"text": "a"}, {"text": "b"', '[{"text": "a"} {"text": "b"}]', '[{"text": "a"},, 1]']
)
def test_a_damaged_array_keeps_what_came_before(tmp_path: Path, content: str) -> None:
    texts, log = read(tmp_path, content, "a.json")
    assert texts == ["a"]
    assert log.skipped == {"damaged JSON": 1}
    assert "after row 1" in log.examples["damaged JSON"][0]


def test_an_object_too_long_for_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(piece, "MAX_ROW_CHARS", 100)
    _, log = read(tmp_path, json.dumps({"rows": ["x" * 50] * 9}), "a.json")
    assert log.skipped == {"JSON object longer than 100 characters": 1}


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("title", "T"),
        ("a.b", "flat"),
        ("a . b", None),
        ("turns.say", "hi\nho"),
        ("lines", "one\ntwo"),
        ("title, lines", "T\n\none\ntwo"),
        ("title,missing", "T"),
        ("title,none", "T"),
        ("x, y", "odd"),
        ("none", None),
        ("a.c", None),
        ("turns", None),
        ("missing", None),
    ],
)
def test_fields_inside_and_several_together(tmp_path: Path, field: str, text: str | None) -> None:
    texts, log = read(tmp_path, json.dumps(ROW) + "\n", "a.ndjson", field)
    assert texts == ([] if text is None else [text])
    assert log.skipped.total() == (text is None)


def test_a_missing_field_names_the_paths_there_are(tmp_path: Path) -> None:
    _, log = read(tmp_path, json.dumps(ROW) + "\n", "a.jsonl")
    for path in ("'title'", "'a.b'", "'turns.say'", "'lines'"):
        assert path in log.examples["no text field"][0]


@pytest.mark.parametrize(("field", "text"), [("q.x", "deep"), ("l", "a\nb"), ("t,q.x", "T\n\ndeep")])
def test_fields_inside_a_parquet_table(tmp_path: Path, field: str, text: str) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"t": ["T"], "q": [{"x": "deep", "n": 1}], "l": [["a", "b"]]}), path)
    log = SourceLog()
    assert [p.document.text for p in read_file(path, "a", ReadingOptions(field), log)] == [text]
