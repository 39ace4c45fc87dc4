"""Tables of text: delimiters, headers, stray quotation marks, and the settings that override detection."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.data.reading import csv_rows, piece
from etude.data.reading.formats import read_file
from etude.data.reading.options import ReadingOptions
from etude.data.reading.piece import SourceLog


def read(tmp_path: Path, content: str, name: str = "a.csv", **options: Any) -> tuple[list[str], SourceLog]:
    path = tmp_path / name
    path.write_bytes(content.encode())
    log = SourceLog()
    return [p.document.text for p in read_file(path, name, ReadingOptions(**options), log)], log


@pytest.mark.parametrize(
    ("content", "note"),
    [
        ("n;text\n1;red, green\n2;blue\n", "separated by semicolon"),
        ("n\ttext\n1\tred, green\n2\tblue\n", "separated by tab"),
        ("n|text\n1|red, green\n2|blue\n", "separated by pipe"),
        ('n, text\n1, "red, green"\n2, blue\n', ""),
        ('"n","text"\r\n1,"red, green"\r\n2,blue\r\n', ""),
        ('N,Text\n1,"red, green"\n2,blue\n', "text in column 'Text'"),
        ('7,"red, green"\n8,blue\n', "no header, text in column 2"),
        ("7;red, green\n8;blue\n", "separated by semicolon, no header, text in column 2"),
        ("text\nred, green\nblue\n", ""),
    ],
)
def test_the_layout_is_detected_and_noted(tmp_path: Path, content: str, note: str) -> None:
    texts, log = read(tmp_path, content)
    assert texts == ["red, green", "blue"]
    assert not log.skipped
    assert note in " ".join(log.notes())
    if note:
        assert "data.csv_delimiter" in log.notes()[0]


def test_settings_override_the_layout(tmp_path: Path) -> None:
    content = "text,other\na;b,c\nd;e,f\n"
    assert read(tmp_path, content)[0] == ["a;b", "d;e"]
    texts, log = read(tmp_path, content, csv_delimiter="semicolon", csv_header=False, text_field="2")
    assert texts == ["b,c", "e,f"]
    assert log.skipped == {"row without text": 1}
    assert read(tmp_path, content, csv_header=False, text_field="1")[0] == ["text", "a;b", "d;e"]
    texts, log = read(tmp_path, "1,2\nx,y\n", csv_header=True)
    assert texts == []
    assert "fields there: '1', '2'" in log.examples["no text field"][0]


def test_a_quotation_mark_that_never_closes_swallows_no_row(tmp_path: Path) -> None:
    texts, log = read(tmp_path, 'id,text\n1,"9 inches\n2,"a, b"\n3,"c ""d"""\n4,"the last\n')
    assert texts == ['"9 inches', "a, b", 'c "d"', '"the last']
    assert log.notes() == ["a.csv: rows read without quoting, since a quotation mark does not close: 2"]


def test_quotation_marks_of_other_programs(tmp_path: Path) -> None:
    texts, log = read(tmp_path, 'id,text\n1,"say \\"so\\", then"\n2,"Go" he said\n3,"x, y" \n')
    assert texts == ['say "so", then', '"Go" he said', "x, y "]
    assert "quotation mark" in log.notes()[0]


def test_two_strays_that_look_like_one_cell_are_counted(tmp_path: Path) -> None:
    content = 'id,text\n1,"six\n2,two\n3,three"\n4,four\n'
    texts, log = read(tmp_path, content)
    assert texts == ["six\n2,two\n3,three", "four"]  # a cell of three lines is not an error
    assert log.notes() == ["a.csv: quoted cells in which every line looks like a row (check their quotes): 1"]


def test_text_with_unquoted_delimiters_is_kept_or_counted(tmp_path: Path) -> None:
    texts, log = read(tmp_path, "id,text\n1,red, green\n2,b\n")
    assert texts == ["red, green", "b"]
    assert len(log.notes()) == 1
    texts, log = read(tmp_path, "text,id\nred, green,1\nb,2\n3\n")
    assert texts == ["b", "3"]
    assert log.skipped == {"row with too many columns": 1}
    assert read(tmp_path, "id,text\n1\n2,b,,\n") == (["b"], read(tmp_path, "id,text\n1\n2,b,,\n")[1])
    assert read(tmp_path, "id,text\n1\n2,b,,\n")[1].skipped == {"row without text": 1}


def test_quotation_marks_that_never_close_are_not_read_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(piece, "MAX_ROW_CHARS", 2000)
    texts, log = read(tmp_path, "id,text\n" + 'a","b\n' * 5000)
    assert log.skipped == {"damaged CSV": 1}
    assert "never close" in log.examples["damaged CSV"][0]
    assert len(texts) < 100


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(("mark", "more"), [(";", ""), ("\t", ""), ("^", "\ufeff")])
def test_a_first_line_of_excel_names_the_delimiter(tmp_path: Path, mark: str, more: str, end: str) -> None:
    lines = [f"{more}sep={mark}", f"id{mark}text", f'1{mark}"red, green; blue"', f"2{mark}x, y"]
    texts, log = read(tmp_path, end.join(lines))
    assert texts == ["red, green; blue", "x, y"]
    assert not log.notes()
    found = read_file(tmp_path / "a.csv", "a.csv", ReadingOptions(csv_delimiter="comma"), SourceLog())
    assert [piece.document.text for piece in found] != texts  # a setting overrides detection


def test_rows_after_a_first_line_of_excel_keep_their_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("sep=;\nid;text\n1;one\n")
    (found,) = read_file(tmp_path / "a.csv", "a.csv", ReadingOptions(), SourceLog())
    assert found.document.id == "a.csv:3"
    assert read(tmp_path, "sep=;\n")[1].skipped == {"empty": 1}


@pytest.mark.parametrize(
    "header", ['"id" , "text" , "label"', '"id", "text", "label"', '"id" ,"text" ,"label"']
)
def test_spaces_around_quoted_names_are_no_part_of_them(tmp_path: Path, header: str) -> None:
    between = header[4 : header.index('"text"')]
    rows = [["1", '"red, green"', '"x"'], ["2", '"say ""so"", then"', '"y"'], ["3", "blue", '"z"']]
    texts, log = read(tmp_path, "\n".join([header, *(between.join(row) for row in rows)]) + "\n")
    assert texts == ["red, green", 'say "so", then', "blue"]
    (note,) = log.notes()
    assert "table with spaces around quoted cells dropped; otherwise" in note


CELLS = st.text(st.sampled_from('ab ,;\t"\n|é'), max_size=8)


@given(st.lists(st.tuples(st.integers(0, 99), CELLS), min_size=1, max_size=6), st.sampled_from(",;\t|"))
def test_what_the_standard_writer_writes_comes_back(rows: list[tuple[int, str]], delimiter: str) -> None:
    page = io.StringIO(newline="")
    csv.writer(page, delimiter=delimiter).writerows([("id", "text"), *rows])
    page.seek(0)
    log = SourceLog()
    found = [text for _, text in csv_rows.texts_of(page, Path("a.csv"), "a.csv", ReadingOptions(), log)]
    assert found == [text for _, text in rows]
    assert "does not close" not in " ".join(log.notes())
