"""The encoding in which a file is read: known text in each encoding, and the note for every assumption."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from etude.data.reading import encodings, streams
from etude.data.reading.encodings import encoding_of
from etude.data.reading.formats import read_file
from etude.data.reading.options import ReadingOptions, codec_of, label_of
from etude.data.reading.piece import SourceLog, Unusable
from etude.errors import InputError

QUOTES = "She said: “it’s 5 € – or more…”\n"
RUSSIAN = "Мой дядя самых честных правил, когда не в шутку занемог.\n"
TEXTS = {
    "windows-1252": [QUOTES, "Où est l'hôtel ? À côté.\n", "Die Füße über der Straße.\n", "naïve", "20 °C ± 1"],
    "windows-1250": ["Wszyscy ludzie rodzą się wolni i równi pod względem swej godności.\n"],
    "windows-1251": [RUSSIAN, "Дом"],
    "koi8-r": [RUSSIAN, "Дом и лес"],
    "ibm866": [RUSSIAN],
    "windows-1253": ["Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι.\n"],
    "windows-1254": ["Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar.\n"],
    "windows-1255": ["כל בני האדם נולדו בני חורין ושווים בערכם.\n"],
    "windows-1256": ["يولد جميع الناس أحرارا متساوين في الكرامة والحقوق.\n"],
    "windows-874": ["มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกัน\n"],
    "shift_jis": ["すべての人間は、生まれながらにして自由である。\n", "昔々、ある所に。\n"],
    "euc-jp": ["すべての人間は、生まれながらにして自由である。\n"],
    "iso-2022-jp": ["すべての人間は自由である。\n"],
    "gb18030": ["人人生而自由，在尊严和权利上一律平等。\n"],
    "big5": ["人人生而自由，在尊嚴和權利上一律平等。\n"],
    "euc-kr": ["모든 인간은 태어날 때부터 자유로우며 평등하다.\n"],
    "utf-16-le": ["Plain words.\n", RUSSIAN, "人人生而自由，\n在尊严上平等。\n"],
    "utf-16-be": ["Plain words.\n", RUSSIAN, "人人生而自由，\n在尊严上平等。\n"],
    "utf-32-le": ["Plain words.\n"],
}  # fmt: skip
CASES = [(name, text) for name, texts in TEXTS.items() for text in texts]


def read(path: Path, *rules: str) -> tuple[str, SourceLog]:
    log = SourceLog()
    options = ReadingOptions(encoding=rules or ("auto",))
    return "".join(piece.document.text for piece in read_file(path, path.name, options, log)), log


@pytest.mark.parametrize(("name", "text"), CASES)
def test_text_without_a_mark_is_read_and_the_assumption_is_noted(
    tmp_path: Path, name: str, text: str
) -> None:
    path = tmp_path / "old.txt"
    path.write_bytes(text.encode(codec_of(name)))
    found, log = read(path)
    assert found == text
    (note,) = log.notes()
    assert note.startswith("old.txt: ")
    assert "--set data.encoding=" in note


@pytest.mark.parametrize(("name", "text"), CASES)
def test_an_encoding_can_be_requested_for_all_or_for_a_file(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / "old.txt"
    path.write_bytes(text.encode(codec_of(name)))
    for rules in ([name], ["utf-8", f"old.txt={name}"], [f"*.txt={name}", "other.txt=utf-8"]):
        found, log = read(path, *rules)
        assert found == text
        assert not log.notes()


def test_a_request_that_does_not_fit_is_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"good line\n" * 300_000 + b"\xff")
    found, log = read(path, "utf-8")
    assert found == ""  # a file that is bad near its end is not read in part
    assert log.examples == {
        "not UTF-8": ["a.txt: bad byte near offset 3,000,000; it is requested by data.encoding"]
    }
    with pytest.raises(InputError, match="there is no encoding 'klingon'"):
        ReadingOptions(encoding=("a.txt=klingon",))


def test_what_the_web_calls_latin_1_is_windows_1252() -> None:
    assert [codec_of(label) for label in ("iso-8859-1", "latin1", "ascii", "shift_jis", "utf8")] == [
        "cp1252", "cp1252", "cp1252", "cp932", "utf-8",
    ]  # fmt: skip
    assert [label_of(codec) for codec in ("cp1252", "cp932", "utf-16-le", "utf-8-sig", "koi8-r")] == [
        "windows-1252", "shift_jis", "UTF-16-LE", "UTF-8", "koi8-r",
    ]  # fmt: skip


def test_detection_sees_what_comes_after_a_long_beginning_of_ascii(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    text = "A plain line of words.\n" * 100_000 + QUOTES
    path.write_bytes(text.encode("cp1252"))
    assert len(text) > 2 * streams.CHUNK_BYTES
    assert read(path)[0] == text


def test_every_row_of_a_file_has_its_encoding(tmp_path: Path) -> None:
    rows = [
        {"jsonl": '{"text": "%s"}\n', "csv": '"%s"\n'}[kind] % RUSSIAN.strip() for kind in ("jsonl", "csv")
    ]
    for kind, row, head in (("jsonl", rows[0], ""), ("csv", rows[1], "text\n")):
        path = tmp_path / f"a.{kind}"
        path.write_bytes((head + row * 3).encode("koi8-r"))
        log = SourceLog()
        found = [piece.document.text for piece in read_file(path, path.name, ReadingOptions(), log)]
        assert found == [RUSSIAN.strip()] * 3
        assert len(log.notes()) == 1


def test_single_bytes_of_windows_in_utf_8_text(tmp_path: Path) -> None:
    """The result of `cat new.txt old.txt`; a last character that is cut off becomes U+FFFD."""
    path = tmp_path / "a.txt"
    path.write_bytes(RUSSIAN.encode() + "it’s\n".encode("cp1252") + "日".encode()[:2])
    found, log = read(path)
    assert found == RUSSIAN + "it’s\n\ufffd"
    assert "UTF-8 except for 3 bytes" in log.notes()[0]


def test_a_nul_byte_does_not_make_a_text_binary(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"one line\0of text\n")
    assert read(path)[0] == "one line\0of text\n"  # cleaning will remove the NUL and count it


@pytest.mark.parametrize("seed", range(5))
def test_random_bytes_are_no_text_in_any_encoding(seed: int) -> None:
    import random

    data = random.Random(seed).randbytes(3000)
    with pytest.raises(Unusable, match="binary"):
        encoding_of(lambda: io.BytesIO(data), "a", ReadingOptions(), SourceLog())


@pytest.mark.parametrize(
    ("label", "codec"),
    [("iso-8859-1", "cp1252"), ("koi8-r", "koi8-r"), ("x-sjis", "cp932"), ("utf-16", "cp1252")],
)
def test_a_page_is_read_as_the_web_reads_its_label(tmp_path: Path, label: str, codec: str) -> None:
    """A page that declares UTF-16 in ASCII letters cannot be UTF-16; the declaration is ignored."""
    text = {"koi8-r": RUSSIAN, "cp932": "すべての人間は自由である。\n"}.get(codec, QUOTES)
    page = f'<!-- <meta charset="cp866"> --><meta charset={label}><p>{text}</p>'
    (tmp_path / "a.html").write_bytes(page.encode(codec))
    assert read(tmp_path / "a.html")[0] == text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("windows-1251", "Да"),
        ("windows-1251", "Нет, да"),
        ("koi8-r", "Нет"),
        ("windows-1252", "Été"),
        ("windows-1252", "it’s"),
        ("shift_jis", "昔々、ある所に。"),
        ("euc-kr", "안녕하세요"),
        ("gb18030", "你好，中国"),
        ("macroman", "don’t"),
    ],
)
def test_a_detection_from_a_few_bytes_is_a_guess(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode(codec_of(name)))
    found, log = read(path)
    assert found == text
    assert "(a guess)" in log.notes()[0]


def test_enough_bytes_are_no_guess(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(RUSSIAN.encode("cp1251"))
    assert "(a guess)" not in read(path)[1].notes()[0]


def test_curly_quotes_of_old_macs_in_english(tmp_path: Path) -> None:
    text = "“I don’t know,” she said. ‘It isn’t the dogs’ house.’ They’re away – I’m sure.\n" * 200
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode("mac-roman"))
    found, log = read(path)
    assert found == text
    assert log.notes() == [f"a.txt: not UTF-8, read as mac-roman; otherwise {encodings.OVERRIDE}"]


@pytest.mark.parametrize(
    "text", ["A canção não é do João. AVÓ, CAMÕES E A SÕNA.\n", "Ôter l’Ôde, Òpera d’été et Ódin.\n"]
)
def test_capitals_with_accents_are_no_quotes(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes((text * 20).encode("cp1252"))
    assert read(path)[0] == text * 20


def test_a_note_about_many_files_is_one_line() -> None:
    log = SourceLog()
    for number in range(1000):
        log.assume("not UTF-8, read as koi8-r", f"{number}.txt", encodings.OVERRIDE)
    assert log.notes() == [
        f"1,000 files (such as 0.txt): not UTF-8, read as koi8-r; otherwise {encodings.OVERRIDE}"
    ]
