"""The reference text, on which a run measures what it forgets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from etude.data.reference import BUILT_IN, MOST_BYTES, NONE, ReferenceText, reference_text
from etude.errors import InputError


def test_the_text_of_the_package_has_documents_of_several_kinds() -> None:
    text = reference_text(BUILT_IN)
    assert text is not None
    assert len(text.documents) > 8
    assert any("def " in document for document in text.documents)
    assert all("%%" not in document for document in text.documents)
    assert sum(len(document.encode()) for document in text.documents) <= MOST_BYTES


def test_a_file_is_read_up_to_a_limit_and_never_within_a_character(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("x" + "é" * MOST_BYTES, encoding="utf-8")
    text = reference_text(str(file))
    assert text is not None
    assert text.name == "mine.txt"
    (document,) = text.documents
    assert len(document.encode()) == MOST_BYTES - 1
    assert set(document) == {"x", "é"}


@pytest.mark.parametrize(
    "content", [b"", b"  \n ", b"\x00\x01\x02", b"\xff\xfe", "Gr\u00f6\u00dfe".encode("latin-1")]
)
def test_a_file_without_text_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "mine.txt"
    file.write_bytes(content)
    with pytest.raises(InputError, match="give a text file"):
        reference_text(str(file))


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for source in (tmp_path / "none.txt", tmp_path, "x" * 5000):
        with pytest.raises(InputError, match="give a text file"):
            reference_text(str(source))


def test_it_survives_the_manifest_and_damage_is_refused() -> None:
    text = ReferenceText("mine", ("one", "two"))
    assert ReferenceText.from_json(text.to_json()) == text
    for damaged in (
        None,
        [],
        {},
        {"name": "a"},
        {"name": "a", "documents": []},
        {"name": 1, "documents": ["a"]},
    ):
        with pytest.raises(InputError, match="manifest is damaged"):
            ReferenceText.from_json(damaged)
    with pytest.raises(InputError, match="manifest is damaged"):
        ReferenceText.from_json({"name": "a", "documents": ["a", 3]})


def test_none_is_no_text() -> None:
    assert reference_text(NONE) is None


def test_a_file_is_read_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    original = Path.open

    def counted(path: Path, *arguments: Any, **options: Any) -> Any:
        opened.append(path)
        return original(path, *arguments, **options)

    file = tmp_path / "text.txt"
    file.write_text("One.")
    monkeypatch.setattr(Path, "open", counted)
    assert reference_text(str(file)) == reference_text(str(file)) == ReferenceText("text.txt", ("One.",))
    assert opened == [file]
    file.write_bytes(b"Two, or more.")
    assert reference_text(str(file)) == ReferenceText("text.txt", ("Two, or more.",))
