"""Read PDF, DOCX, EPUB and RTF as plain text.

The libraries are optional: ``pip install 'etude[documents]'``. EPUB needs none.
"""

from __future__ import annotations

import io
import logging
import posixpath
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

from etude.data.document import Document
from etude.data.reading.html_text import html_to_text
from etude.data.reading.options import ReadingOptions
from etude.data.reading.piece import MAX_ROW_CHARS, Piece, SourceLog, Unusable
from etude.data.reading.streams import plain_file

EXTRA = "documents"
INSTALL = f"pip install 'etude[{EXTRA}]'"
MAX_UNPACKED_BYTES = 256 << 20
"""Limit for a .docx or .epub, which are archives."""
_Parts = Iterator[str]


class LibraryMissing(Unusable):
    """A file needs a library that is not installed."""

    def __init__(self, kind: str) -> None:
        super().__init__(f"{kind} needs a library", INSTALL)


def read_pdf(path: Path, name: str, options: ReadingOptions, log: SourceLog) -> Iterator[Piece]:
    """Read a PDF: the text of its pages as one document. Text in pictures is not read."""
    return _document(path, name, "PDF", _pdf_pages)


def read_docx(path: Path, name: str, options: ReadingOptions, log: SourceLog) -> Iterator[Piece]:
    """Read a Word document: paragraphs and tables in their order, as one document."""
    return _document(path, name, "DOCX", _docx_blocks)


def read_epub(path: Path, name: str, options: ReadingOptions, log: SourceLog) -> Iterator[Piece]:
    """Read an e-book: its chapters in reading order, as one document."""
    return _document(path, name, "EPUB", _epub_chapters)


def read_rtf(path: Path, name: str, options: ReadingOptions, log: SourceLog) -> Iterator[Piece]:
    """Read rich text as one document."""
    return _document(path, name, "RTF", _rtf_text)


def _document(path: Path, name: str, kind: str, parts: Callable[[Path], _Parts]) -> Iterator[Piece]:
    """Yield one document from the texts of its parts, each of which ends with a line end.

    The libraries raise dozens of kinds of error on damaged files, mostly from other libraries.
    """
    empty = True
    with plain_file(path) as plain:
        try:
            for part in parts(plain):
                if part.strip():
                    yield Piece(Document(part.rstrip("\n") + "\n", name, name), continues=not empty)
                    empty = False
        except (Unusable, MemoryError):
            raise
        except ImportError:
            raise LibraryMissing(kind) from None
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            raise Unusable(f"damaged {kind}", reason) from error
    if empty:
        raise Unusable(f"{kind} without text", "pictures of text need OCR first" if kind == "PDF" else "")


def _pdf_pages(path: Path) -> _Parts:
    from pypdf import PdfReader

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it warns about every oddity of a page
    reader = PdfReader(path)
    if reader.is_encrypted and not reader.decrypt(""):
        raise Unusable("PDF with a password", "remove it first")
    for page in reader.pages:
        yield page.extract_text()


def _docx_blocks(path: Path) -> _Parts:
    import docx
    from docx.table import Table

    _refuse_huge(path, "DOCX")
    lines: list[str] = []

    def add(block: Any) -> None:
        if isinstance(block, Table):
            for row in block.rows:
                cells = dict.fromkeys(row.cells)  # a merged cell is listed once for each column that it spans
                lines.append("\t".join(" ".join(cell.text.split()) for cell in cells))
        else:
            lines.append(str(block.text))

    for block in docx.Document(str(path)).iter_inner_content():
        add(block)
    yield "\n".join(lines)


def _rtf_text(path: Path) -> _Parts:
    from striprtf.striprtf import rtf_to_text

    with path.open("rb") as file:
        raw = file.read(MAX_ROW_CHARS + 1)
    if len(raw) > MAX_ROW_CHARS:
        raise Unusable(f"RTF longer than {MAX_ROW_CHARS:,} bytes", "save it as .txt first")
    if not raw.lstrip().startswith(b"{\\rtf"):
        raise Unusable("damaged RTF", "it does not begin as RTF does")
    # RTF is ASCII with escapes; the file itself declares what other bytes mean, so pass them through unchanged.
    convert: Callable[..., str] = rtf_to_text
    yield convert(raw.decode("latin-1"), errors="replace")


def _epub_chapters(path: Path) -> _Parts:
    """Yield the pages of an EPUB in the order of its spine (EPUB 3.3, section 3)."""
    _refuse_huge(path, "EPUB")
    with zipfile.ZipFile(path) as archive:
        if "META-INF/encryption.xml" in archive.namelist():
            encrypted = archive.read("META-INF/encryption.xml")
            if b"EncryptedData" in encrypted and b"IDPF" not in encrypted and b"obfuscation" not in encrypted:
                raise Unusable("EPUB with copy protection", "its text cannot be read")
        container = _xml(archive.read("META-INF/container.xml"))
        package = next(
            item.attrib["full-path"] for item in container.iter() if item.tag.endswith("}rootfile")
        )
        book = _xml(archive.read(package))
        files = {item.attrib["id"]: item.attrib for item in book.iter() if item.tag.endswith("}item")}
        read: set[str] = set()  # a spine may name a page several times; its text is read once
        size = 0
        for reference in book.iter():
            if not reference.tag.endswith("}itemref"):
                continue
            item = files.get(reference.attrib.get("idref", ""))
            if item is None or "nav" in item.get("properties", "").split():
                continue
            inside = posixpath.normpath(
                posixpath.join(posixpath.dirname(package), unquote(item["href"].partition("#")[0]))
            )
            if inside in read:
                continue
            read.add(inside)
            if archive.getinfo(inside).file_size > MAX_ROW_CHARS:
                raise Unusable(f"EPUB with a page longer than {MAX_ROW_CHARS:,} bytes")
            page = archive.read(inside)
            size += len(page)
            if size > MAX_UNPACKED_BYTES:
                raise Unusable(
                    "EPUB that expands too much", f"more than {MAX_UNPACKED_BYTES:,} bytes come out"
                )
            yield html_to_text(_page_text(page))


def _page_text(page: bytes) -> str:
    """Decode a page: XML is UTF-8, or UTF-16 with a byte order mark."""
    wide = page.startswith((b"\xff\xfe", b"\xfe\xff"))
    with io.TextIOWrapper(io.BytesIO(page), "utf-16" if wide else "utf-8-sig", errors="replace") as reader:
        return reader.read()


def _xml(data: bytes) -> ElementTree.Element:
    if b"<!ENTITY" in data or len(data) > MAX_ROW_CHARS:
        raise Unusable("damaged EPUB", "its table of contents is not what it should be")
    return ElementTree.fromstring(data)


def _refuse_huge(path: Path, kind: str) -> None:
    with zipfile.ZipFile(path) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    if size > MAX_UNPACKED_BYTES:
        raise Unusable(f"{kind} that expands too much", f"{size:,} bytes come out")
