"""The beginning of a text: whole documents, cleaned, and no more than requested."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.data.corpus.beginning import beginning_of
from etude.data.reading.piece import PIECE_CHARS
from etude.errors import InputError


def test_files_and_rows_are_documents(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One.\r\nTwo.\n")
    rows = ["first", "   ", "third"]
    (tmp_path / "b.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    found = beginning_of([str(tmp_path)], 1_000)
    assert [text for _, text in found] == ["One.\nTwo.\n", "first", "third"]
    assert found[0][0].endswith("a.txt")
    assert len({name for name, _ in found}) == 3


@given(st.lists(st.text("aé語\n", min_size=1).filter(str.strip), min_size=1, max_size=5), st.integers(1, 60))
def test_it_ends_where_the_bytes_do(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], room: int
) -> None:
    file = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    expected = "".join(texts).encode()[:room].decode("utf-8", "ignore")
    found = "".join(text for _, text in beginning_of([str(file)], room))
    assert expected.startswith(found)
    assert not expected[len(found) :].strip()  # a last document of only white space is not returned


def test_a_long_document_comes_whole(tmp_path: Path) -> None:
    text = "Some words. " * (PIECE_CHARS // 6)
    (tmp_path / "long.txt").write_text(text)
    ((_, found),) = beginning_of([str(tmp_path / "long.txt")], 10 * PIECE_CHARS)
    assert found == text
    ((_, found),) = beginning_of([str(tmp_path / "long.txt")], PIECE_CHARS + 10)
    assert found == text[: PIECE_CHARS + 10]


def test_nothing_usable_says_why(tmp_path: Path) -> None:
    (tmp_path / "blank.txt").write_text("  \n")
    with pytest.raises(InputError, match=r"no usable text in .*1 blank"):
        beginning_of([str(tmp_path)], 100)
    with pytest.raises(InputError, match="there is no file or folder"):
        beginning_of([str(tmp_path / "none.txt")], 100)
