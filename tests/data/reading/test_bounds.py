"""Limits on untrusted files: the size of unpacked data, and the time for elements that are never closed."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from etude.data.reading import streams
from etude.data.reading.formats import read_file
from etude.data.reading.html_text import html_to_text
from etude.data.reading.options import ReadingOptions
from etude.data.reading.piece import SourceLog

PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".zst": lambda data: zstandard.ZstdCompressor().compress(data),
}


@pytest.mark.parametrize("ending", list(PACK))
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv", "a.html", "a.parquet"])
def test_what_expands_without_measure_is_refused(
    tmp_path: Path, name: str, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "FREE_EXPANSION_BYTES", 1000)
    packed = PACK[ending](b"0" * 3_000_000)
    assert len(packed) * streams.MOST_EXPANSION < 3_000_000
    path = tmp_path / (name + ending)
    path.write_bytes(packed)
    log = SourceLog()
    assert list(read_file(path, name, ReadingOptions(), log)) == []
    assert log.skipped == {"expands too much": 1}
    assert "more than" in log.examples["expands too much"][0]


@pytest.mark.parametrize("dictionary", [True, False])
def test_rows_of_parquet_have_the_same_bound(
    tmp_path: Path, dictionary: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repeated text is stored once, and zeros compress to almost nothing."""
    monkeypatch.setattr(streams, "FREE_EXPANSION_BYTES", 1000)
    path = tmp_path / "a.parquet"
    table = pa.table({"text": ["0" * 100_000] * 40, "more": ["x"] * 40})
    pq.write_table(table, path, compression="zstd", use_dictionary=dictionary)
    limit = streams.MOST_EXPANSION * path.stat().st_size
    assert limit < 4_000_000
    log = SourceLog()
    texts = [piece.document.text for piece in read_file(path, "a", ReadingOptions(), log)]
    assert sum(map(len, texts)) <= limit
    assert log.skipped == {"expands too much": 1}
    log = SourceLog()
    options = ReadingOptions(text_field="more")  # only the columns that are read count
    assert len(list(read_file(path, "a", options, log))) == 40


def repeated(text: str, count: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int8()), pa.array([text]))


@pytest.mark.parametrize(
    "column",
    [
        repeated("0" * 100_000, 40),
        pa.ListArray.from_arrays(pa.array([0, 40], pa.int32()), repeated("0" * 100_000, 40)),
        pa.ListArray.from_arrays(pa.array([0, 100_000], pa.int32()), repeated("", 100_000)),
    ],
    ids=["categories", "list of categories", "many empty texts"],
)
def test_a_text_that_rows_of_parquet_share_counts_each_time(
    tmp_path: Path, column: pa.Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "FREE_EXPANSION_BYTES", 1000)
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": column}), path, compression="zstd")
    log = SourceLog()
    texts = [piece.document.text for piece in read_file(path, "a", ReadingOptions(), log)]
    assert sum(map(len, texts)) <= streams.MOST_EXPANSION * path.stat().st_size
    assert log.skipped == {"expands too much": 1}


@pytest.mark.parametrize("ending", list(PACK))
def test_ordinary_text_expands_as_it_needs(tmp_path: Path, ending: str) -> None:
    text = "".join(f"line {number}\n" for number in range(20_000))
    path = tmp_path / f"a.txt{ending}"
    path.write_bytes(PACK[ending](text.encode()))
    log = SourceLog()
    assert "".join(p.document.text for p in read_file(path, "a", ReadingOptions(), log)) == text


def test_a_bomb_is_unpacked_in_small_parts(tmp_path: Path) -> None:
    """A gigabyte of zeros in 32 kB: only a small part is unpacked at any time."""
    path = tmp_path / "a.txt.zst"
    packer = zstandard.ZstdCompressor().compressobj()
    packed = b"".join(packer.compress(bytes(1 << 24)) for _ in range(64)) + packer.flush()
    path.write_bytes(packed)
    stream = streams._Zstd(path)
    most = 0
    buffer = memoryview(bytearray(1 << 16))
    for _ in range(3000):
        assert stream.readinto(buffer) == len(buffer)
        most = max(most, len(stream._ready))
    stream.close()
    assert most < 1 << 27


def test_several_frames_are_one_text(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.zst"
    path.write_bytes(PACK[".zst"](b"one\n") + PACK[".zst"](b"two\n"))
    with streams.open_bytes(path) as stream:
        assert stream.read() == b"one\ntwo\n"


@pytest.mark.parametrize(
    "part",
    ["<!--", "<!", "<?", "</", "<a ", '<a b="', "<![CDATA[", "&", "&#", "<script>", "<script></script ", "<title>",
     "<svg></math>", "<", "<pre>", "<a =", "<a b= ", "<textarea></textare", "<a b='\"", "<!-- --!"],
)  # fmt: skip
def test_what_is_never_closed_is_read_once(part: str) -> None:
    """The standard library's parser searches for the end again at each tag: hours for a page of this size."""
    page = "<p>before</p>" + part * (400_000 // len(part))
    assert html_to_text(page).startswith("before\n")


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("a < b <3 &lt;b> c<!-- > --><!---->d<!>e<?php x ?>f</>g", "a < b <3 <b> cdefg"),
        ("<b title='a>b' x=\"c>d\">e</b><a href=/x/>f", "ef"),
        ("x<script>if (a<b) '<!--' </scripty></script>y<style><b></STYLE\n>z", "xyz"),
        ("<title>a &amp; <b></title>c", "a & <b>\n\nc"),
        ("&#8217;&#x2019;&#146;&notit;&#" + "9" * 5000 + ";", "’’’¬it;\ufffd"),
        ("a<svg><math>x</math>y</svg>b<select><p>c</select>d", "abd"),
        ("a<!-- never closed <p>b", "a"),
        ("a<b never='closed>b", "ab"),  # more lenient than the standard, which drops the rest
        ("a<![CDATA[b]]>c", "ac"),
    ],
)
def test_pages_are_cut_as_the_standard_has_it(page: str, text: str) -> None:
    assert html_to_text(page) == text + "\n"
