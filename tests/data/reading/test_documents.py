"""PDF, DOCX, EPUB and RTF as text, their damage, and the libraries that may be missing."""

from __future__ import annotations

import builtins
import gzip
import io
import zipfile
from pathlib import Path
from typing import Any

import pytest

import made_files
from etude.data.reading import documents
from etude.data.reading.formats import read_file
from etude.data.reading.options import ReadingOptions
from etude.data.reading.piece import SourceLog
from etude.errors import InputError


def read(path: Path, *, named: bool = False) -> tuple[list[str], SourceLog]:
    log = SourceLog()
    texts: list[str] = []
    for piece in read_file(path, path.name, ReadingOptions(), log, named=named):
        if piece.continues:
            texts[-1] += piece.document.text
        else:
            texts.append(piece.document.text)
    return texts, log


def test_the_pages_of_a_pdf_are_one_document(tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(made_files.pdf(["A fox ran.", "It slept."]))
    texts, log = read(path)
    assert texts == ["A fox ran.\nIt slept.\n"]
    assert not log.skipped


def test_paragraphs_and_tables_of_a_word_document(tmp_path: Path) -> None:
    path = tmp_path / "a.docx.gz"
    path.write_bytes(gzip.compress(made_files.docx(["One – “two”.", "", "Three."], [["a", "b"], ["c", "d"]])))
    assert read(path)[0] == ["One – “two”.\n\nThree.\na\tb\nc\td\n"]


def test_chapters_of_an_e_book_come_in_reading_order(tmp_path: Path) -> None:
    path = tmp_path / "a.epub"
    path.write_bytes(made_files.epub(["second café", "first &amp; best"], order=[1, 0]))
    assert read(path)[0] == ["first & best\nsecond café\n"]


def test_rich_text_keeps_its_characters(tmp_path: Path) -> None:
    path = tmp_path / "a.rtf"
    path.write_bytes(made_files.RTF)
    assert read(path)[0] == [made_files.RTF_TEXT]


@pytest.mark.parametrize("kind", ["pdf", "docx", "epub", "rtf"])
def test_a_damaged_document_is_counted(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    path.write_bytes(b"%PDF-1.4 or PK not really")
    texts, log = read(path)
    assert texts == []
    assert dict(log.skipped) == {f"damaged {kind.upper()}": 1}


def test_a_pdf_of_pictures_needs_ocr(tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(made_files.pdf([""]))
    assert read(path)[1].examples == {"PDF without text": ["a.pdf: pictures of text need OCR first"]}


@pytest.mark.parametrize(
    ("name", "content", "library"),
    [
        ("a.pdf", made_files.pdf(["x"]), "pypdf"),
        ("a.docx", b"PK", "docx"),
        ("a.rtf", made_files.RTF, "striprtf"),
    ],
)
def test_a_missing_library_is_named(
    tmp_path: Path, name: str, content: bytes, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A named file gives one line; in a folder, the reason is counted."""
    usual = builtins.__import__

    def without(module: str, *rest: Any, **more: Any) -> Any:
        if module.split(".")[0] == library:
            raise ImportError(module)
        return usual(module, *rest, **more)

    path = tmp_path / name
    path.write_bytes(content)
    monkeypatch.setattr(builtins, "__import__", without)
    assert "etude[documents]" in read(path)[1].examples[f"{name[2:].upper()} needs a library"][0]
    with pytest.raises(InputError, match=r"pip install 'etude\[documents\]'"):
        read(path, named=True)


def test_an_archive_that_expands_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MAX_UNPACKED_BYTES", 100_000)
    target = io.BytesIO(made_files.epub(["x"]))
    with zipfile.ZipFile(target, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("OEBPS/more", b"0" * 200_000)
    (tmp_path / "a.epub").write_bytes(target.getvalue())
    assert read(tmp_path / "a.epub")[1].skipped == {"EPUB that expands too much": 1}


def test_a_page_that_the_spine_names_often_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.epub"
    path.write_bytes(made_files.epub(["one", "two"], order=[1, 0, 1, 1, 0]))
    assert read(path)[0] == ["two\none\n"]
    monkeypatch.setattr(documents, "MAX_UNPACKED_BYTES", 50)
    monkeypatch.setattr(documents, "_refuse_huge", lambda path, kind: None)
    texts, log = read(path)
    assert texts == ["two\n"]
    assert log.skipped == {"EPUB that expands too much": 1}


def test_an_e_book_that_defines_entities_is_refused(tmp_path: Path) -> None:
    """Ten lines of entities can stand for gigabytes."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("META-INF/container.xml", '<!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>')
    (tmp_path / "a.epub").write_bytes(target.getvalue())
    assert read(tmp_path / "a.epub")[1].skipped == {"damaged EPUB": 1}
