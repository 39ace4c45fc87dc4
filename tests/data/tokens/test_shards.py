"""Tokens on disk equal direct encoding, for any number of workers and size of files."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpora import line, prepared, write_documents
from etude.data.corpus.corpus import Corpus, Part
from etude.data.prepared_data import PreparedData
from etude.data.tokens import shards
from etude.data.tokens.parts import TokenPart
from etude.data.tokens.shards import encode_part, open_part, plan, token_dtype


def direct(data: PreparedData, part: Part) -> list[int]:
    """Encode by independent means: every document whole."""
    stream = []
    for document in data.documents(part):
        stream += [data.tokenizer.roles.document_id, *data.tokenizer.encode(document.decode())]
    return stream


def encoded(data: PreparedData, folder: Path, part: Part = "train", **options: int) -> TokenPart:
    folder.mkdir()
    reported: list[int] = []
    facts = encode_part(
        data.corpus,
        part,
        data.tokenizer,
        folder,
        progress=lambda _, done, __: reported.append(done),
        **options,
    )
    assert reported == sorted(reported)
    assert reported[-1] == data.corpus.num_bytes(part) == facts["source_bytes"]
    dtype = token_dtype(data.tokenizer.vocab_size).name
    return open_part(folder, part, facts, dtype, data.tokenizer.roles.document_id, str)


def long_text() -> str:
    rng = random.Random(4)
    return "".join(line(rng) + rng.choice(["\n", "\n\n", " ", " \n  ", "é ", "\r\n"]) for _ in range(3000))


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    folder = tmp_path_factory.mktemp("book")
    (folder / "book.txt").write_text(long_text())
    return prepared(folder / "book.txt", folder / "cache", split="tail", validation_fraction=0.1)


@pytest.mark.parametrize("kind", ["bpe", "char"])
@pytest.mark.parametrize("split", ["hash", "tail"])
def test_tokens_equal_direct_encoding(tmp_path: Path, kind: str, split: str) -> None:
    write_documents(tmp_path / "text", 60)
    (tmp_path / "text" / "long.txt").write_text(long_text())
    data = prepared(tmp_path / "text", tmp_path / "cache", tokenizer={"kind": kind}, split=split)
    for part, tokens in (("train", data.train), ("validation", data.validation)):
        expected = direct(data, part)  # type: ignore[arg-type]
        assert tokens.window(0, tokens.num_tokens).tolist() == expected
        assert tokens.documents[:-1].tolist() == [
            n for n, t in enumerate(expected) if t == data.tokenizer.roles.document_id
        ]
        sizes = [len(document) for document in data.documents(part)]  # type: ignore[arg-type]
        begins = np.searchsorted(tokens.marks[0], tokens.documents)
        assert np.diff(tokens.marks[1, begins]).tolist() == sizes
        assert tokens.source_bytes == sum(sizes)


def test_workers_do_not_change_the_tokens(
    book: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "TASK_BYTES", 40_000)
    assert len(list(plan(book.corpus, "train", book.tokenizer.places))) >= 4
    one = encoded(book, tmp_path / "one", workers=1)
    two = encoded(book, tmp_path / "two", workers=2, serial_bytes=0)
    expected = direct(book, "train")
    assert one.window(0, one.num_tokens).tolist() == expected
    assert two.window(0, two.num_tokens).tolist() == expected
    assert one.marks.tolist() == two.marks.tolist()


def test_a_part_reads_the_same_from_many_files(book: PreparedData, tmp_path: Path) -> None:
    part = encoded(book, tmp_path / "many", workers=1, shard_tokens=1000)
    assert len(part.shards) > 30
    assert all(len(shard) == 1000 for shard in part.shards[:-1])
    expected = np.array(direct(book, "train"))
    for start, length in ((0, 10), (995, 10), (1000, 1000), (500, 5000), (len(expected) - 3, 10)):
        assert (
            part.window(start, length).tolist()
            == np.take(expected, range(start, start + length), mode="wrap").tolist()
        )


def test_marks_know_the_bytes_before_them(book: PreparedData) -> None:
    text = next(book.documents("train"))
    tokens, sizes = book.train.marks
    assert len(tokens) > 10
    for place, size in zip(tokens[1:].tolist(), sizes[1:].tolist(), strict=True):
        assert book.tokenizer.decode(book.train.window(1, place - 1).tolist()).encode() == text[:size]


def test_a_text_without_a_safe_place_is_encoded_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "日" * 30_000
    (tmp_path / "a.txt").write_text(text)
    monkeypatch.setattr(shards, "TASK_BYTES", 10_000)
    data = prepared(tmp_path / "a.txt", tmp_path / "cache", split="tail")
    assert data.train.window(0, data.train.num_tokens).tolist() == direct(data, "train")
    assert data.report.notes == []


def test_a_stretch_too_long_for_memory_is_cut_and_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "日" * 30_000
    (tmp_path / "a.txt").write_text(text)
    monkeypatch.setattr(shards, "TASK_BYTES", 5_000)
    monkeypatch.setattr(shards, "LONGEST_STRETCH", 30_000)
    data = prepared(tmp_path / "a.txt", tmp_path / "cache", split="tail")
    assert data.tokenizer.decode(data.train.window(1, data.train.num_tokens - 1).tolist()) == text[:28_500]
    assert any("without a place to cut" in note for note in data.report.notes)


def test_a_large_vocabulary_takes_four_bytes_a_token() -> None:
    assert token_dtype(65_536) == np.uint16
    assert token_dtype(65_537) == np.uint32


@settings(max_examples=50)
@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=9), min_size=1, max_size=20), st.data())
def test_a_part_in_memory_knows_its_documents(documents: list[list[int]], data: st.DataObject) -> None:
    part = TokenPart.from_documents(documents, 0)
    stream = [token for document in documents for token in (0, *document)]
    owners = [n for n, document in enumerate(documents) for _ in range(len(document) + 1)]
    assert part.num_tokens == len(part) == len(stream)
    place = data.draw(st.integers(0, len(stream) - 1))
    length = data.draw(st.integers(0, 3 * len(stream)))
    assert part.window(place, length).tolist() == [stream[(place + n) % len(stream)] for n in range(length)]
    assert part.document_of(place) == str(owners[place])
    assert part.document_numbers(np.arange(len(stream))).tolist() == owners


def test_a_dead_worker_is_one_line(
    book: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from etude.errors import EtudeError

    monkeypatch.setattr(shards, "_work", _die)
    with pytest.raises(EtudeError, match=r"data\.workers=1"):
        encoded(book, tmp_path / "dead", workers=2, serial_bytes=0)


def _die(task: object) -> None:
    import os

    os._exit(9)


def test_text_of_a_part_can_be_limited(book: PreparedData) -> None:
    whole = next(book.documents("train"))
    assert b"".join(book.documents("train", 1000)) == whole[:1000].decode("utf-8", "ignore").encode()
    assert Corpus(book.corpus.folder).hash == book.corpus_hash
