"""`hf:` sources, on local files through the same loading code."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from etude.data.reading.hub import HubSource
from etude.data.reading.piece import SourceLog
from etude.errors import InputError

pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))


def folder_of(tmp_path: Path, rows: list[dict[str, object]]) -> str:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "test.jsonl").write_text(json.dumps({"text": "from the test split"}) + "\n")
    return f"hf:{folder}"


def test_a_local_folder_streams(tmp_path: Path) -> None:
    name = folder_of(tmp_path, [{"text": f"row {n}"} for n in range(5)])
    source = HubSource(name, "text")
    pieces = list(source.pieces(SourceLog()))
    assert [piece.document.text for piece in pieces] == [f"row {n}" for n in range(5)]
    assert len({piece.document.id for piece in pieces}) == 5
    before = source.identity()
    (tmp_path / "set" / "train.jsonl").write_text('{"text": "changed"}\n')
    assert source.identity() != before


def test_a_split_can_be_named(tmp_path: Path) -> None:
    source = HubSource(folder_of(tmp_path, [{"text": "x"}]) + ":test", "text")
    assert [piece.document.text for piece in source.pieces(SourceLog())] == ["from the test split"]


def test_a_missing_field_names_those_there_are(tmp_path: Path) -> None:
    log = SourceLog()
    assert list(HubSource(folder_of(tmp_path, [{"text": "x"}]), "story").pieces(log)) == []
    assert log.skipped == {"no text field": 1}
    assert "'text'" in log.examples["no text field"][0]


def test_a_wrong_split_is_one_line(tmp_path: Path) -> None:
    source = HubSource(folder_of(tmp_path, [{"text": "x"}]) + ":nope", "text")
    with pytest.raises(InputError, match="split") as caught:
        list(source.pieces(SourceLog()))
    assert "\n" not in str(caught.value)


def test_without_the_hub_there_is_one_line() -> None:
    source = HubSource("hf:nobody/nothing-here", "text")
    with pytest.raises(InputError, match=r"hf:|Hub") as caught:
        source.identity()
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError) as caught:
        list(source.pieces(SourceLog()))
    assert "\n" not in str(caught.value)


def test_the_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"pip install 'etude\[hub\]'"):
        HubSource("hf:owner/name", "text")
    monkeypatch.setitem(sys.modules, "pyarrow", None)


def test_parquet_without_pyarrow_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from etude.data.reading.formats import read_file
    from etude.data.reading.options import ReadingOptions

    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"pip install pyarrow"):
        list(read_file(tmp_path / "a.parquet", "a.parquet", ReadingOptions(), SourceLog()))


@pytest.mark.parametrize("name", ["hf:", "hf::train", "hf:owner/name:"])
def test_a_name_without_a_data_set_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="hf:owner/name"):
        HubSource(name, "text")
