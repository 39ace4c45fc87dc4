"""Every kind of file, plain and compressed, and every way in which a file cannot be used."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

import made_files
from etude.data.reading import formats, piece, streams
from etude.data.reading.formats import KNOWN_ENDINGS, read_file
from etude.data.reading.html_text import html_to_text
from etude.data.reading.options import ReadingOptions
from etude.data.reading.piece import SourceLog

TEXTS = ["Once upon a time,\nthere was a fox.\n", "Zweitens: café, 日本語, 😀.\n", 'He said "so, so".\n']
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".zst": lambda data: zstandard.ZstdCompressor().compress(data),
}


PROSE = "Once upon a time, there was a fox.\n"


def encoded(ending: str) -> bytes:
    if ending in {".jsonl", ".ndjson"}:
        return "".join(json.dumps({"text": text, "n": 1}) + "\n" for text in TEXTS).encode()
    if ending == ".json":
        return json.dumps([{"text": text, "n": 1} for text in TEXTS], indent=1).encode()
    if ending in {".csv", ".tsv"}:
        page = io.StringIO(newline="")
        rows = [["n", "text"], *([str(n), text] for n, text in enumerate(TEXTS))]
        csv.writer(page, delimiter="," if ending == ".csv" else "\t").writerows(rows)
        return page.getvalue().encode()
    if ending == ".parquet":
        sink = io.BytesIO()
        pq.write_table(pa.table({"text": TEXTS}), sink)
        return sink.getvalue()
    if ending in {".html", ".htm"}:
        return f"<html><body><p>{TEXTS[0]}</p></body></html>".encode()
    made = {
        ".pdf": lambda: made_files.pdf([PROSE.strip()]),
        ".docx": lambda: made_files.docx([PROSE.strip()]),
        ".epub": lambda: made_files.epub([PROSE.strip()]),
        ".rtf": lambda: b"{\\rtf1 " + PROSE.strip().encode() + b"\\par}",
    }
    return made[ending]() if ending in made else "".join(TEXTS).encode()


def read(path: Path, *, named: bool = False, **options: Any) -> tuple[list[str], SourceLog]:
    log = SourceLog()
    documents: list[str] = []
    for one in read_file(path, path.name, ReadingOptions(**options), log, named=named):
        if one.continues:
            documents[-1] += one.document.text
        else:
            documents.append(one.document.text)
    return documents, log


@pytest.mark.parametrize("compression", list(COMPRESS))
@pytest.mark.parametrize("ending", KNOWN_ENDINGS)
def test_every_format_gives_its_documents_back(tmp_path: Path, ending: str, compression: str) -> None:
    path = tmp_path / f"book{ending}{compression}"
    path.write_bytes(COMPRESS[compression](encoded(ending)))
    documents, log = read(path)
    if ending in {".txt", ".md", ".rst", ".py"}:
        assert documents == ["".join(TEXTS)]
    elif ending in {".html", ".htm", ".pdf", ".docx", ".epub", ".rtf"}:
        assert documents == [PROSE]
    else:
        assert documents == TEXTS
    assert log.files == 1
    assert not log.skipped


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_byte_order_marks_name_the_encoding(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.txt"
    mark = "﻿" if encoding == "utf-16-le" else ""
    path.write_bytes((mark + TEXTS[1]).encode(encoding))
    assert read(path)[0] == [TEXTS[1]]


def test_all_line_ends_read_alike(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\r\ntwo\rthree\n")
    assert read(path)[0] == ["one\ntwo\nthree\n"]


@pytest.mark.parametrize(
    ("name", "content", "reason", "hint"),
    [
        ("a.txt", b"", "empty", ""),
        ("a.txt.gz", gzip.compress(b"", mtime=0), "empty", ""),
        ("a.txt", b"GIF89a\0\0\1", "binary", "image"),
        ("a.txt", bytes(range(32)) * 9, "binary", "NUL"),
        ("a.txt", b"%PDF-1.7 ...", "binary", ".pdf"),
        ("a.txt", b"{\\rtf1 x}", "binary", ".rtf"),
        ("a.txt", b"\xff\xfea", "not UTF-16", "damaged"),
        (
            "a.txt.zst",
            COMPRESS[".zst"](b"".join(b"line %d\n" % n for n in range(9999)))[:4000],
            "damaged archive",
            "",
        ),
        ("a.xlsx", b"PK\3\4", "cannot read .xlsx", ".csv"),
        ("a.doc", b"\xd0\xcf\x11\xe0", "cannot read .doc", ".docx"),
        ("a.txt.gz", b"not gzip at all", "damaged archive", ""),
        ("a.txt.gz", gzip.compress(b"hello " * 99, mtime=0)[:-12], "damaged archive", ""),
        ("a.txt.zst", b"not zstd at all!", "damaged archive", ""),
        ("a.parquet", b"PAR1 but not really", "damaged Parquet", ""),
        ("a.parquet", b"", "empty", ""),
        ("a.csv", b"id,body\n1,hello\n", "no text field", "'body'"),
        ("a.png", b"\x89PNG", "unknown ending .png", ""),
    ],
)
def test_a_file_that_cannot_be_used_is_counted(
    tmp_path: Path, name: str, content: bytes, reason: str, hint: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    documents, log = read(path)
    assert documents == []
    assert dict(log.skipped) == {reason: 1}
    assert hint in log.examples[reason][0]


def test_bad_rows_are_counted_and_the_others_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [
        b'{"text": "good"}',
        b"{broken",
        b'{"body": 1}',
        b'{"text": 5}',
        b'{"text": "caf\xe9"}',
        b"[1]",
        b"",
    ]
    path.write_bytes(b"\n".join([*rows, b'{"text": "also good"}']))
    documents, log = read(path)
    assert documents == ["good", "café", "also good"]
    assert log.skipped == {"bad JSON line": 2, "no text field": 1, "text is not a string": 1}
    assert "'body'" in log.examples["no text field"][0]


def test_json_nested_too_deeply_is_a_bad_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": ' + "[" * 200_000 + '\n{"text": "good"}\n')
    documents, log = read(path)
    assert documents == ["good"]
    assert log.skipped["bad JSON line"] == 1


def test_a_giant_row_is_skipped_and_the_next_one_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(piece, "MAX_ROW_CHARS", 100)
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "x" * 1000}) + '\n{"text": "good"}\n')
    documents, log = read(path)
    assert documents == ["good"]
    assert log.skipped == {"row longer than 100 characters": 1}


def test_a_damaged_parquet_page_keeps_what_came_before(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    texts = [f"document number {n} " * 40 for n in range(2000)]
    pq.write_table(
        pa.table({"text": texts}), path, row_group_size=500, compression="gzip", use_dictionary=False
    )
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400] = b"\xa5" * 400
    path.write_bytes(bytes(data))
    documents, log = read(path)
    assert documents == texts[: len(documents)]
    assert log.skipped == {"damaged Parquet": 1}


def test_no_permission_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    path.write_text("secret")

    def refuse(path: Path) -> io.BytesIO:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(formats, "open_bytes", refuse)
    assert read(path)[1].skipped == {"unreadable": 1}


def test_a_long_text_comes_in_pieces_that_join_to_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "".join(f"Line {n}: é and ü.\r\n" * (n % 5) + "\n" for n in range(300))
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode())
    monkeypatch.setattr(streams.pieces_of, "__defaults__", (512,))
    log = SourceLog()
    pieces = list(read_file(path, "a.txt", ReadingOptions(), log))
    assert len(pieces) > 5
    assert [one.continues for one in pieces] == [False] + [True] * (len(pieces) - 1)
    assert {one.document.id for one in pieces} == {"a.txt"}
    assert all(one.document.text.endswith("\n") for one in pieces)
    assert "".join(one.document.text for one in pieces) == text.replace("\r\n", "\n")


def test_a_text_without_line_ends_is_cut_between_words_or_anywhere() -> None:
    for text in ("word " * 1000, "x" * 5000, "é" * 5000):
        pieces = list(streams.pieces_of(io.StringIO(text), 256))
        assert "".join(pieces) == text
        assert max(map(len, pieces)) < 4 * 256 + 256


def test_a_named_file_of_unknown_ending_is_text_unless_it_is_binary(tmp_path: Path) -> None:
    (tmp_path / "README").write_text("plain words")
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff\0")
    assert read(tmp_path / "README", named=True)[0] == ["plain words"]
    documents, log = read(tmp_path / "photo.jpg", named=True)
    assert log.skipped == {"binary": 1}
    assert not log.notes()
    (tmp_path / "book.fb2.gz").write_bytes(gzip.compress(b"<p>plain words"))
    documents, log = read(tmp_path / "book.fb2.gz", named=True)
    assert documents == ["<p>plain words"]
    assert log.notes() == ["book.fb2.gz: unknown ending .fb2, read as plain text"]
    assert not read(tmp_path / "README", named=True)[1].notes()


def test_html_keeps_what_a_reader_sees() -> None:
    page = """<!doctype html><html><head><title>A fox</title><style>p {color: red}</style>
    <script>if (a < b) { document.write("<p>no</p>") }</script></head>
    <body><h1>The &amp; fox</h1><p>It   ran
    <b>fast</b>.<br>Then it slept.</p><ul><li>one</li><li>two</li></ul>
    <svg><text>icon</text></svg><!-- note --><pre>a
      b</pre><p>End</body>"""
    assert html_to_text(page).split("\n") == [
        "A fox", "", "The & fox", "", "It ran fast.", "Then it slept.", "", "one", "two", "",
        "a", "      b", "", "End", "",
    ]  # fmt: skip


def test_html_honours_the_declared_encoding(tmp_path: Path) -> None:
    path = tmp_path / "a.html"
    path.write_bytes('<meta charset="iso-8859-1"><p>café</p>'.encode("latin-1"))
    assert read(path)[0] == ["café\n"]
    path.write_bytes('<meta charset="nonsense"><p>café</p>'.encode("latin-1"))
    assert read(path)[0] == ["café\n"]


def test_examples_are_few() -> None:
    log = SourceLog()
    for number in range(100):
        log.skip("empty", f"file{number}")
    assert log.skipped["empty"] == 100
    assert len(log.examples["empty"]) == piece.EXAMPLES_KEPT
