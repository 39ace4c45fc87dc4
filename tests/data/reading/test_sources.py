"""Sources as the user types them, and the errors for those that do not exist."""

from __future__ import annotations

import io
import json
import os
import sys
import threading
from itertools import islice
from pathlib import Path

import pytest

from etude.data.reading.options import ReadingOptions
from etude.data.reading.piece import SourceLog
from etude.data.reading.sources import (
    PathSource,
    Source,
    StreamSource,
    has_conversations,
    nothing_usable,
    open_sources,
    read_as_examples,
)
from etude.errors import InputError
from unprivileged import as_ordinary_user


def opened(*names: str, spool: Path | None = None) -> list[Source]:
    return open_sources(names, text_field="text", max_bytes=None, seed=1, spool=spool or Path("unused"))


def ids(source: Source) -> tuple[list[str], SourceLog]:
    log = SourceLog()
    return [piece.document.id for piece in source.pieces(log)], log


def test_a_folder_is_read_recursively_in_order(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.md", "a/c.py", ".hidden.txt", ".git/x.txt", "d.bin"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"text of {name}")
    found, log = ids(opened(str(tmp_path))[0])
    assert found == [f"{tmp_path}/{name}" for name in ("a/c.py", "a/z.md", "b.txt")]
    assert log.skipped == {"hidden": 2, "unknown ending .bin": 1}


def test_symbolic_link_loops_end(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.txt").write_text("text")
    (tmp_path / "a" / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    found, log = ids(opened(str(tmp_path))[0])
    assert found == [f"{tmp_path}/a/x.txt"]
    assert log.skipped["symbolic link loop"] == 1
    assert log.skipped["unreadable"] == 1


@pytest.mark.parametrize("wrong", ["tinyshakspeare.txt", "boks/one.txt"])
def test_a_missing_path_names_the_nearest(tmp_path: Path, wrong: str) -> None:
    (tmp_path / "tinyshakespeare.txt").write_text("x")
    (tmp_path / "books").mkdir()
    with pytest.raises(InputError, match=r"did you mean '.*(tinyshakespeare\.txt|books)'"):
        opened(str(tmp_path / wrong))


def test_identity_follows_content_and_names(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "b.txt").write_text("two")
    before = PathSource(str(tmp_path), ReadingOptions()).identity()
    assert PathSource(str(tmp_path), ReadingOptions()).identity() == before
    os.utime(tmp_path / "a.txt", (0, 0))
    assert PathSource(str(tmp_path), ReadingOptions()).identity() == before
    (tmp_path / "a.txt").write_text("one!")
    assert PathSource(str(tmp_path), ReadingOptions()).identity() != before


def test_standard_input_is_one_document(tmp_path: Path) -> None:
    source = StreamSource("-", io.BytesIO(b"hello\nworld\n"), tmp_path)
    pieces = list(source.pieces(SourceLog()))
    assert [(p.document.text, p.document.id) for p in pieces] == [("hello\nworld\n", "stdin")]
    assert source.identity() == StreamSource("-", io.BytesIO(b"hello\nworld\n"), tmp_path).identity()


def test_standard_input_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"from a pipe")))
    (source,) = opened("-", spool=tmp_path)
    assert [p.document.text for p in source.pieces(SourceLog())] == ["from a pipe"]


def test_a_named_pipe_is_read_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=("through a pipe",))
    writer.start()
    (source,) = opened(str(pipe), spool=tmp_path / "spool")
    writer.join()
    assert source.identity() == source.identity()
    assert [p.document.text for p in source.pieces(SourceLog())] == ["through a pipe"]


def test_builtin_python_is_the_standard_library_without_its_tests() -> None:
    (source,) = opened("builtin:python")
    names = [piece.document.id for piece in islice(source.pieces(SourceLog()), 400)]
    assert "python/argparse.py" in names
    assert not any("site-packages" in name or "/test" in name for name in names)
    assert source.identity() == opened("builtin:python")[0].identity()


def test_builtin_primer_depends_on_its_seed_and_length() -> None:
    def identity(seed: int, size: int) -> object:
        return open_sources(
            ["builtin:primer"], text_field="text", max_bytes=size, seed=seed, spool=Path("unused")
        )[0].identity()

    assert identity(1, 1000) == identity(1, 1000)
    assert len({repr(identity(seed, size)) for seed in (1, 2) for size in (1000, 2000)}) == 4


def test_an_unknown_builtin_names_those_there_are() -> None:
    with pytest.raises(
        InputError, match="builtin:primer, builtin:primer-instructions, builtin:python, builtin:repeats"
    ):
        opened("builtin:prime")


def test_the_same_source_twice_counts_once(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    assert len(opened(str(tmp_path), str(tmp_path))) == 1


def test_nothing_usable_says_what_was_looked_at() -> None:
    log = SourceLog(looked_at=["notes"])
    log.skip("empty", "notes/a.txt", count=2)
    log.skip("unknown ending .pdf", "notes/b.pdf")
    message = str(nothing_usable(log))
    assert "notes" in message
    assert "2 empty (such as notes/a.txt)" in message
    assert "unknown ending .pdf" in message
    assert "\n" not in message


def test_an_unreadable_folder_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    source = opened(str(tmp_path))[0]
    monkeypatch.setattr(os, "scandir", refuse)
    assert ids(source)[1].skipped == {"unreadable": 1}


def test_a_subfolder_that_may_not_be_entered_is_counted(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    closed = tmp_path / "closed"
    closed.mkdir()
    (closed / "b.txt").write_text("secret")
    closed.chmod(0)
    try:
        with as_ordinary_user():
            found, log = ids(opened(str(tmp_path))[0])
    finally:
        closed.chmod(0o700)
    assert found == [f"{tmp_path}/a.txt"]
    assert log.skipped == {"unreadable": 1}


def test_a_named_file_of_unknown_ending_is_known_by_its_content(tmp_path: Path) -> None:
    """A file of any length is read as text if it is named, unlike in a folder."""
    path = tmp_path / "notes"
    path.write_bytes(b"a" * (64 * (1 << 20) + 1))
    before = PathSource(str(path), ReadingOptions()).identity()
    with path.open("r+b") as file:
        file.write(b"b")
    assert PathSource(str(path), ReadingOptions()).identity() != before


def test_a_folder_takes_every_known_ending_and_names_the_others(tmp_path: Path) -> None:
    (tmp_path / "a.ndjson").write_text('{"text": "one"}\n')
    (tmp_path / "b.htm").write_text("<p>two")
    (tmp_path / "c.odt").write_bytes(b"PK\3\4")
    found, log = ids(opened(str(tmp_path))[0])
    assert found == [f"{tmp_path}/a.ndjson:1", f"{tmp_path}/b.htm"]
    assert log.examples["cannot read .odt"] == [
        f"{tmp_path}/c.odt: an OpenDocument text: save it as .txt, .docx or .pdf first"
    ]


@pytest.mark.parametrize(
    ("raw", "ending", "conversations"),
    [
        (b'{"question": "a", "answer": "b"}\n', ".jsonl", True),
        (b'\xef\xbb\xbf {"title": 1}\n{"question": "a", "answer": "b"}\n', ".jsonl", True),
        (b'[{"question": "a", "answer": "b"}]', ".json", True),
        (b'{"text": "a"}\n', ".jsonl", False),
        (b'{"title": "a"}\n' * 30, "", False),
        (b"[1] A list of sources\n", "", False),
        (b'"Hello"\n', "", False),
        (b"", "", False),
    ],
)
def test_rows_in_a_pipe_are_recognised(tmp_path: Path, raw: bytes, ending: str, conversations: bool) -> None:
    source = StreamSource("-", io.BytesIO(raw), tmp_path)
    assert source.row_ending == ending
    assert has_conversations([source]) == conversations
    assert [piece.document.text for piece in source.pieces(SourceLog())] == [raw.decode("utf-8-sig")] * bool(
        raw
    )
    (examples,) = read_as_examples([source], ReadingOptions())
    log = SourceLog()
    kinds = [json.loads(piece.document.text)["kind"] for piece in examples.pieces(log)]
    assert kinds == (["conversation"] if conversations else ["text"] * bool(raw))
    assert any("read as rows of JSON" in line for line in log.notes()) == bool(ending)
