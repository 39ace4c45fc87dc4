"""The cache: reused when nothing changed, never when something did, never incomplete."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from corpora import line, prepared, write_documents
from etude.data import prepared_data
from etude.data.prepared_data import open_prepared, prepare
from etude.data.report import DataReport, human_bytes
from etude.data.report_picture import draw_report
from etude.data.tokens import vocabulary
from etude.errors import EtudeError, InputError
from etude.files import STAGING_PREFIX, staged_folder
from etude.places import cache_folder
from etude.text_settings import DataSettings, TokenizerSettings


@pytest.fixture
def text(tmp_path: Path) -> Path:
    write_documents(tmp_path / "text", 80)
    return tmp_path / "text"


def inodes(cache: Path) -> dict[str, int]:
    return {
        str(path): path.stat().st_ino
        for path in cache.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }


def test_the_second_time_nothing_is_made(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepared(text, tmp_path / "cache")
    files = inodes(tmp_path / "cache")
    for job in ("build_corpus", "_tokenizer", "_encode"):
        monkeypatch.setattr(prepared_data, job, lambda *_: pytest.fail("it was made again"))
    second = prepared(text, tmp_path / "cache")
    assert inodes(tmp_path / "cache") == files
    assert second.fingerprint == first.fingerprint
    assert second.corpus_hash == first.corpus_hash
    assert second.tokenizer.hash == first.tokenizer.hash
    assert second.report == first.report
    assert second.train.window(0, 500).tolist() == first.train.window(0, 500).tolist()


def test_two_caches_hold_the_same_bytes(text: Path, tmp_path: Path) -> None:
    one, two = prepared(text, tmp_path / "one"), prepared(text, tmp_path / "two", workers=2)
    for folder, other in ((one.corpus.folder, two.corpus.folder),):
        for path in folder.iterdir():
            assert path.read_bytes() == (other / path.name).read_bytes(), path.name
    files = [json.loads(p.read_text())["files"] for p in sorted(tmp_path.glob("*/tokens/*/manifest.json"))]
    assert files[0] == files[1]


CHANGES: dict[str, dict[str, Any]] = {
    "normalization": {"normalization": "NFKC"},
    "min_chars": {"min_chars": 2},
    "deduplicate": {"deduplicate": "exact"},
    "split": {"split": "tail"},
    "validation_fraction": {"validation_fraction": 0.1},
    "section_bytes": {"section_bytes": 4096},
    "max_bytes": {"max_bytes": 20_000},
    "text_field": {"text_field": "body"},
    "encoding": {"encoding": ("koi8-r",)},
    "csv_delimiter": {"csv_delimiter": "tab"},
    "csv_header": {"csv_header": False},
    "kind": {"tokenizer": {"kind": "char"}},
    "vocab_size": {"tokenizer": {"vocab_size": 300}},
    "pattern": {"tokenizer": {"pattern": "gpt2"}},
}


@pytest.mark.parametrize("change", list(CHANGES))
def test_a_changed_setting_makes_new_data(text: Path, tmp_path: Path, change: str) -> None:
    before = prepared(text, tmp_path / "cache")
    after = prepared(text, tmp_path / "cache", **CHANGES[change])
    assert after.fingerprint != before.fingerprint
    again = prepared(text, tmp_path / "cache")
    assert again.fingerprint == before.fingerprint


@pytest.mark.parametrize("settings", [{"workers": 3}, {"cross_document_attention": False}])
def test_a_setting_that_leaves_the_text_alone_reuses_it(
    text: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    assert (
        prepared(text, tmp_path / "cache", **settings).fingerprint
        == prepared(text, tmp_path / "cache").fingerprint
    )


def test_what_was_assumed_and_removed_is_in_the_report(tmp_path: Path) -> None:
    """The note is also in the record of the cache, so that it is shown whenever the text is used."""
    folder = tmp_path / "text"
    folder.mkdir()
    words = [f"le gar\xe7on num\xe9ro {n} \x93est\x94 l\xe0, d\xe9j\xe0.\n" for n in range(300)]
    (folder / "old.txt").write_bytes("".join(words).encode("latin-1"))
    (folder / "new.txt").write_text("".join(f"Line {n}\0 of another text.\n" for n in range(300)))
    for _ in range(2):
        data = prepared(folder, tmp_path / "cache")
        notes = "\n".join(data.report.notes)
        assert f"{folder}/old.txt: not UTF-8, read as windows-1252" in notes
        assert "NUL characters removed: 300" in notes
    text = b"".join([*data.documents("train"), *data.documents("validation")]).decode()
    assert "garçon numéro 7 \u201cest\u201d là, déjà." in text
    again = prepared(folder, tmp_path / "cache", encoding=("old.txt=cp1250",))
    other = b"".join([*again.documents("train"), *again.documents("validation")]).decode()
    assert "garçon numéro 7 \u201cest\u201d lŕ, déjŕ." in other


def test_changed_text_makes_new_data_even_at_the_same_time_and_size(text: Path, tmp_path: Path) -> None:
    import os

    before = prepared(text, tmp_path / "cache")
    file = sorted(text.iterdir())[0]
    status = file.stat()
    content = file.read_text()
    file.write_text(content[:-3] + "#" + content[-2:])
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = prepared(text, tmp_path / "cache")
    assert after.fingerprint != before.fingerprint
    assert after.corpus_hash != before.corpus_hash


def test_another_tokenizer_file_makes_new_data(text: Path, tmp_path: Path) -> None:
    prints = set()
    for size in (300, 310):
        vocabulary.train_bpe([line(random.Random(n)) for n in range(50)], size, "gpt2").save(
            tmp_path / "mine"
        )
        data = prepared(
            text, tmp_path / "cache", tokenizer={"kind": str(tmp_path / "mine" / "tokenizer.json")}
        )
        assert data.tokenizer.vocab_size == size
        prints.add(data.fingerprint)
    assert len(prints) == 2


def test_the_family_decides_the_pattern(text: Path, tmp_path: Path) -> None:
    def print_of(family: str, pattern: str) -> str:
        settings = TokenizerSettings(pattern=pattern)  # type: ignore[arg-type]
        data = DataSettings(sources=(str(text),))
        return prepare(data, settings, family_pattern=family, seed=1, cache=tmp_path / "cache").fingerprint

    assert print_of("llama3", "auto") == print_of("gpt2", "llama3")
    assert print_of("llama3", "auto") != print_of("gpt2", "auto")


def test_the_vocabulary_never_sees_validation_text(tmp_path: Path) -> None:
    lines = [line(random.Random(n)) for n in range(100)]
    (tmp_path / "a.txt").write_text("\n".join([*lines, *["ж" * 80] * 6]))
    data = prepared(tmp_path / "a.txt", tmp_path / "cache", tokenizer={"kind": "char"}, split="tail")
    assert any("ж" in text.decode() for text in data.documents("validation"))
    assert not any("ж" in text.decode() for text in data.documents("train"))
    assert data.tokenizer.token(data.tokenizer.encode("ж")[0]).startswith("<0x")


def test_the_vocabulary_of_a_long_text_comes_from_all_over_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vocabulary, "SAMPLE_BYTES", 20_000)
    write_documents(tmp_path / "text", 300)
    data = prepared(tmp_path / "text", tmp_path / "cache", split="tail")
    sample = list(prepared_data._sample(data.corpus, data.train.source_bytes))
    whole = "".join(text.decode() for text in data.documents("train"))
    places = [whole.index(one) for one in sample]
    assert 15_000 < sum(map(len, sample)) <= 21_000
    assert places == sorted(places)
    assert max(places) > 0.9 * len(whole)
    assert min(places) < 0.1 * len(whole)


def damage_flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "flip": damage_flip,
    "truncate": lambda path: path.write_bytes(path.read_bytes()[:-3]),
    "remove": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", list(DAMAGES))
@pytest.mark.parametrize(
    "name",
    ["tokens/*/train-00000.bin", "tokens/*/train.marks.npy", "tokens/*/tokenizer/tokenizer.json",
     "tokens/*/manifest.json", "corpus/*/text.bin", "corpus/*/offsets.npy", "corpus/*/corpus.json"],
)  # fmt: skip
def test_damage_is_found_and_made_good(text: Path, tmp_path: Path, name: str, damage: str) -> None:
    cache = tmp_path / "cache"
    before = prepared(text, cache)
    expected = before.train.window(0, before.train.num_tokens).tolist()
    (path,) = cache.glob(name)
    if path.name.endswith(".json") and damage == "flip":
        path.write_text(path.read_text()[1:])
    else:
        DAMAGES[damage](path)
    if path.name != "manifest.json" or damage != "remove":
        assert open_prepared(cache, before.fingerprint) is None
    after = prepared(text, cache)
    assert after.fingerprint == before.fingerprint
    assert after.train.window(0, after.train.num_tokens).tolist() == expected
    if path.name != "manifest.json" or damage != "remove":
        assert [note for note in after.report.notes if "damaged" in note], after.report.notes
    assert open_prepared(cache, before.fingerprint) is not None


def test_a_resumed_run_opens_its_data_by_fingerprint(text: Path, tmp_path: Path) -> None:
    import shutil

    before = prepared(text, tmp_path / "cache")
    shutil.rmtree(text)
    found = open_prepared(tmp_path / "cache", before.fingerprint)
    assert found is not None
    assert found.corpus_hash == before.corpus_hash
    assert list(found.documents("validation")) == list(before.documents("validation"))
    assert open_prepared(tmp_path / "cache", "0" * 32) is None


@pytest.mark.parametrize(
    "stage", ["read", "check split", "grow vocabulary", "encode train", "encode validation"]
)
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_preparation_leaves_nothing_half_made(
    tmp_path: Path, stage: str, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("etude.data.corpus.split._REPORT_BYTES", 1000)
    monkeypatch.setattr("etude.data.corpus.corpus._REPORT_BYTES", 1000)
    write_documents(tmp_path / "text", 80)
    cache = tmp_path / "cache"

    def stop(now: str, done: int, total: int | None) -> None:
        if now == stage:
            raise error

    settings = DataSettings(sources=(str(tmp_path / "text"),)), TokenizerSettings()
    with pytest.raises(error):
        prepare(*settings, family_pattern="llama3", seed=1, cache=cache, progress=stop)
    left = [
        path.relative_to(cache).parts
        for path in cache.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    ]
    assert all(parts[0] == "corpus" and not parts[1].startswith(".") for parts in left)
    if stage in {"read", "check split"}:
        assert not left
    assert prepare(*settings, family_pattern="llama3", seed=1, cache=cache).train.num_tokens > 0


def test_what_killed_preparations_left_is_removed(text: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    left = [cache / kind / f"{STAGING_PREFIX}{'0' * 32}-left" for kind in ("corpus", "tokens")]
    for folder in left:
        (folder / "tokenizer").mkdir(parents=True)
        (folder / "text.bin").write_bytes(b"half")
    with staged_folder(cache / "corpus" / ("1" * 32)) as alive:
        (alive / "text.bin").write_bytes(b"of another preparation, still at work")
        prepared(text, cache)
        assert [path for kind in ("corpus", "tokens") for path in cache.glob(f"{kind}/.*")] == [alive]
        assert (alive / "text.bin").is_file()


def test_two_at_once_wait_for_each_other(text: Path, tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(3) as pool:
        made = list(pool.map(lambda _: prepared(text, tmp_path / "cache"), range(3)))
    assert len({one.fingerprint for one in made}) == 1
    assert len({one.train.window(0, 200).tobytes() for one in made}) == 1
    assert len(list((tmp_path / "cache").glob("*/*/"))) == 2


def test_a_full_disk_is_one_line(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(prepared_data, "encode_part", full)
    with pytest.raises(EtudeError, match="No space left on device"):
        prepared(text, tmp_path / "cache")
    assert not list((tmp_path / "cache" / "tokens").iterdir())


def test_several_sources_and_their_names(tmp_path: Path) -> None:
    write_documents(tmp_path / "text", 30)
    (tmp_path / "rows.jsonl").write_text(
        "".join(json.dumps({"text": line(random.Random(n))}) + "\n" for n in range(500, 530))
    )
    settings = DataSettings(sources=(str(tmp_path / "text"), str(tmp_path / "rows.jsonl")))
    data = prepare(settings, TokenizerSettings(), family_pattern="llama3", seed=1, cache=tmp_path / "cache")
    names = [data.train.document_of(int(place)) for place in data.train.documents[:-1]]
    assert f"{tmp_path}/text/1-0003.txt" in names
    assert any(name.startswith(f"{tmp_path}/rows.jsonl:") for name in names)
    texts = list(data.documents("train"))
    number = names.index(f"{tmp_path}/text/1-0003.txt")
    assert texts[number] == (tmp_path / "text" / "1-0003.txt").read_bytes()


def test_max_bytes_limits_what_is_read(text: Path, tmp_path: Path) -> None:
    data = prepared(text, tmp_path / "cache", max_bytes=20_000)
    assert 19_000 < data.report.facts["kept"]["bytes"] <= 20_000
    assert any("max_bytes" in note for note in data.report.notes)


def test_the_primer_is_its_seed(tmp_path: Path) -> None:
    def made(seed: int) -> tuple[str, list[bytes]]:
        data = prepared("builtin:primer", tmp_path / "cache", seed=seed, max_bytes=60_000)
        return data.fingerprint, list(data.documents("train"))

    assert made(1) == made(1)
    assert made(1)[1] != made(2)[1]


def test_nothing_usable_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text(" \n")
    (tmp_path / "text" / "b.bin").write_bytes(b"\0")
    with pytest.raises(InputError, match=r"no usable text in .*: 1 .*\(such as") as caught:
        prepared(tmp_path / "text", tmp_path / "cache")
    assert "blank" in str(caught.value)
    assert "unknown ending .bin" in str(caught.value)
    assert not list((tmp_path / "cache").glob("*/*"))


def test_the_report_accounts_for_every_document(tmp_path: Path) -> None:
    write_documents(tmp_path / "text", 50)
    (tmp_path / "text" / "copy.txt").write_text((tmp_path / "text" / "1-0000.txt").read_text())
    (tmp_path / "text" / "blank.md").write_text("\n\n")
    (tmp_path / "text" / "[bold]$x$.png").write_bytes(b"\0")
    report = prepared(tmp_path / "text", tmp_path / "cache").report
    facts = report.as_json()
    assert facts["read"]["documents"] == 52
    assert {reason: count["documents"] for reason, count in facts["dropped"].items()} == {
        "blank": 1,
        "exact copy": 1,
    }
    assert facts["kept"]["documents"] == 50 == sum(facts["lengths"].values())
    assert facts["read"]["bytes"] == facts["kept"]["bytes"] + sum(
        d["bytes"] for d in facts["dropped"].values()
    )
    assert facts["split"]["train"]["bytes"] + facts["split"]["validation"]["bytes"] == facts["kept"]["bytes"]
    assert json.loads(json.dumps(facts)) == facts
    text = report.text(width=400)
    for part in ("kept", "dropped: exact copy", "unknown ending .png", "[bold]$x$.png", "bytes per token"):
        assert part in text


@pytest.mark.parametrize("ending", [".png", ".svg"])
def test_the_picture_is_one(text: Path, tmp_path: Path, ending: str) -> None:
    report = prepared(text, tmp_path / "cache").report
    file = tmp_path / f"report{ending}"
    draw_report(report, file)
    assert file.read_bytes().startswith(b"\x89PNG" if ending == ".png" else b"<?xml")
    with pytest.raises(InputError, match=r"\.png, \.svg or \.pdf"):
        draw_report(report, tmp_path / "report.xyz")
    with pytest.raises(InputError, match="no folder"):
        draw_report(report, tmp_path / "nowhere" / "report.png")


def test_sizes_for_people() -> None:
    assert [human_bytes(n) for n in (5, 999, 1500, 123_456, 2.5e6, 7e9, 5e12)] == [
        "5 bytes", "999 bytes", "1.5 kB", "123 kB", "2.5 MB", "7.0 GB", "5,000 GB",
    ]  # fmt: skip
    assert DataReport({"notes": ["a"]}).notes == ["a"]


def test_the_cache_has_a_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("ETUDE_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "etude"
