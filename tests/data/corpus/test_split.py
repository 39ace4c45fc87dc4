"""The held-out part: no leak, stable, exact."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpora import line, prepared, write_documents
from etude.data.corpus import split as split_module
from etude.data.corpus.leakage import leaked_units
from etude.data.corpus.sections import cut_sections
from etude.data.corpus.split import split_tail
from etude.data.corpus.store import StoreWriter, TextStore
from etude.data.prepared_data import PreparedData
from etude.errors import InputError


def texts(data: PreparedData, part: str) -> list[str]:
    return [document.decode() for document in data.documents(part)]  # type: ignore[arg-type]


def shared_long_lines(data: PreparedData) -> set[str]:
    """Find shared lines by independent means: plain sets of stripped lines."""
    lines = {
        part: {
            one.strip() for text in texts(data, part) for one in text.splitlines() if len(one.strip()) >= 64
        }
        for part in ("train", "validation")
    }
    return lines["train"] & lines["validation"]


def test_no_long_line_of_validation_is_in_training(tmp_path: Path) -> None:
    rng = random.Random(5)
    common = [line(rng) for _ in range(30)]
    for number in range(300):
        lines = [line(rng) for _ in range(rng.randrange(1, 8))]
        if rng.random() < 0.3:
            lines.insert(rng.randrange(len(lines)), f"  {rng.choice(common)}\t")
        (tmp_path / f"{number}.txt").write_text("\n".join(lines))
    data = prepared(tmp_path, tmp_path / "cache", validation_fraction=0.15, deduplicate="exact")
    assert data.report.facts["split"]["moved_to_training"] > 0
    assert data.validation.num_documents > 10
    assert not shared_long_lines(data)


def test_a_chain_of_common_lines_moves_as_a_whole() -> None:
    first, second, third = (line(random.Random(n)) for n in range(3))
    validation = [
        (0, f"{first}\n{second}"),
        (1, f"{second}\n{third}"),
        (2, third),
        (3, line(random.Random(9))),
    ]
    assert leaked_units(validation, [f"a\n {first} \nb"]) == {0, 1, 2}
    assert leaked_units(validation, ["nothing in common"]) == set()


def test_short_lines_do_not_count() -> None:
    assert leaked_units([(0, "ROMEO:\nYes.")], ["ROMEO:\nYes."]) == set()


def test_a_document_keeps_its_part_when_others_come(tmp_path: Path) -> None:
    write_documents(tmp_path / "text", 400)
    before = prepared(tmp_path / "text", tmp_path / "cache")
    write_documents(tmp_path / "text", 400, seed=2)
    after = prepared(tmp_path / "text", tmp_path / "cache")
    old = set(texts(before, "train")) | set(texts(before, "validation"))
    assert len(old) == 400
    assert set(texts(before, "validation")) == set(texts(after, "validation")) & old
    assert set(texts(before, "train")) == set(texts(after, "train")) & old


def test_the_order_of_files_does_not_change_the_parts(tmp_path: Path) -> None:
    write_documents(tmp_path / "text", 100)
    before = prepared(tmp_path / "text", tmp_path / "cache")
    for number, path in enumerate(sorted((tmp_path / "text").iterdir(), reverse=True)):
        path.rename(path.with_name(f"z{number:04d}.txt"))
    after = prepared(tmp_path / "text", tmp_path / "cache")
    assert after.fingerprint != before.fingerprint
    assert texts(after, "validation") == texts(before, "validation")
    assert sorted(texts(after, "train")) == sorted(texts(before, "train"))


@pytest.mark.parametrize("fraction", [0.02, 0.05, 0.3])
def test_one_long_text_is_cut_into_sections(tmp_path: Path, fraction: float) -> None:
    rng = random.Random(3)
    text = "".join(line(rng) + ("\n\n" if n % 7 == 0 else "\n") for n in range(3000))
    (tmp_path / "book.txt").write_text(text)
    data = prepared(
        tmp_path / "book.txt", tmp_path / "cache", validation_fraction=fraction, section_bytes=1024
    )
    parts = {part: texts(data, part) for part in ("train", "validation")}
    assert sum(map(len, parts["train"])) + sum(map(len, parts["validation"])) == len(text)
    share = data.validation.source_bytes / len(text)
    assert fraction / 2 <= share <= fraction * 2
    # Consecutive sections are joined: there is validation text between two documents of training.
    assert text.startswith(parts["train"][0]) or text.startswith(tuple(parts["validation"]))
    places = sorted((text.index(piece), part) for part, pieces in parts.items() for piece in pieces)
    names = [part for _, part in places]
    assert all(a != b for a, b in itertools.pairwise(names))


@given(
    st.lists(
        st.sampled_from(["word ", "\n", "\n\n", "é", "日本語", "x" * 70, "😀"]), min_size=1, max_size=400
    ),
    st.integers(64, 300),
)
def test_sections_tile_any_text(pieces: list[str], size: int) -> None:
    data = "".join(pieces).encode()
    ranges = list(cut_sections(lambda a, b: data[a:b], 0, len(data), size))
    assert [a for a, _ in ranges] == [0, *(b for _, b in ranges[:-1])]
    assert ranges[-1][1] == len(data)
    assert all(0 < b - a <= 3 * size for a, b in ranges)
    for start, end in ranges:
        data[start:end].decode("utf-8")


def stored(folder: Path, documents: list[str]) -> TextStore:
    folder.mkdir()
    writer = StoreWriter(folder)
    for number, text in enumerate(documents):
        writer.begin(str(number), "test")
        writer.add(text)
    writer.close()
    return TextStore(folder)


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5, 0.9])
def test_the_tail_is_exact_to_the_character(tmp_path: Path, fraction: float) -> None:
    rng = random.Random(8)
    for attempt in range(20):
        documents = ["".join(rng.choice("aé日😀\n") for _ in range(rng.randrange(1, 900))) for _ in range(8)]
        store = stored(tmp_path / str(attempt), documents)
        whole = "".join(documents)
        if len(whole.encode()) < split_module.MIN_TEXT_BYTES:
            continue
        split = split_tail(store, np.ones(8, bool), fraction)
        train = "".join(store.read(int(a), int(b)).decode() for a, b, _ in split.train)
        validation = "".join(store.read(int(a), int(b)).decode() for a, b, _ in split.validation)
        assert train == whole[: int(len(whole) * (1 - fraction))]
        assert train + validation == whole


def test_the_tail_of_one_file_is_one_document(tmp_path: Path) -> None:
    text = "".join(line(random.Random(n)) + "\n" for n in range(100))
    (tmp_path / "a.txt").write_text(text)
    data = prepared(tmp_path / "a.txt", tmp_path / "cache", split="tail", validation_fraction=0.1)
    assert texts(data, "train") == [text[: int(len(text) * 0.9)]]
    assert texts(data, "validation") == [text[int(len(text) * 0.9) :]]


def test_a_tiny_corpus_has_something_held_out(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("".join(line(random.Random(n)) + "\n" for n in range(15)))
    data = prepared(tmp_path / "a.txt", tmp_path / "cache")
    assert data.validation.num_documents >= 1
    assert data.train.source_bytes > data.validation.source_bytes


def test_too_little_text_says_how_much_is_needed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Hello.\n")
    with pytest.raises(InputError, match="only 7 bytes of usable text: at least 1,000"):
        prepared(tmp_path / "a.txt", tmp_path / "cache")


def test_a_text_that_only_repeats_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text((line(random.Random(1)) + "\n") * 200)
    with pytest.raises(InputError, match=r"data\.split=tail|cannot be held out"):
        prepared(tmp_path / "a.txt", tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*/*"))
    assert prepared(tmp_path / "a.txt", tmp_path / "cache", split="tail").validation.num_tokens > 10


def test_validation_is_capped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_module, "MAX_VALIDATION_BYTES", 5000)
    write_documents(tmp_path / "text", 600)
    data = prepared(tmp_path / "text", tmp_path / "cache", validation_fraction=0.2)
    assert data.report.facts["split"]["capped"]
    assert 2500 <= data.validation.source_bytes <= 10_000


def test_a_whale_among_many_is_cut(tmp_path: Path) -> None:
    write_documents(tmp_path / "text", 40, lines=3)
    rng = random.Random(6)
    (tmp_path / "text" / "whale.txt").write_text("".join(line(rng) + "\n" for _ in range(2000)))
    data = prepared(tmp_path / "text", tmp_path / "cache")
    assert data.report.facts["split"]["documents_cut"] == 1
    assert 0.025 < data.validation.source_bytes / data.report.facts["kept"]["bytes"] < 0.1


def test_equal_documents_are_never_parted(tmp_path: Path) -> None:
    write_documents(tmp_path / "text", 60)
    for path in list((tmp_path / "text").iterdir()):
        (tmp_path / "text" / f"again-{path.name}").write_text(path.read_text())
    data = prepared(tmp_path / "text", tmp_path / "cache", deduplicate="none")
    assert data.report.facts["kept"]["documents"] == 120
    assert not set(texts(data, "train")) & set(texts(data, "validation"))
